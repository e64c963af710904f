//! The roles of a mixed fleet, and the services that make them.

use super::{Role, SERVICE, Service};

const NGINX: Service = Service {
    name: "nginx",
    path: "/usr/sbin/nginx",
    cmdline: "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;",
    workers: &["nginx: worker process", "nginx: worker process"],
    user: ("www-data", "33"),
    unit: "nginx.service",
    description: "A high performance web server and a reverse proxy server",
    packages: &[("nginx", "1.22.1-9+deb12u2"), ("nginx-common", "1.22.1-9+deb12u2")],
    listens: &[("0.0.0.0", "443"), ("::", "443")],
    clients: &[("443", "{lb}"), ("443", "{lb}")],
    config: "/etc/nginx/nginx.conf",
    ..SERVICE
};

const NODE: Service = Service {
    name: "node",
    path: "/usr/bin/node",
    cmdline: "/usr/bin/node /srv/orders/releases/{release}/server.js --port {appport}",
    workers: &[
        "/usr/bin/node /srv/orders/releases/{release}/worker.js",
        "/usr/bin/node /srv/orders/releases/{release}/worker.js",
    ],
    user: ("orders", "1003"),
    unit: "orders-api.service",
    description: "Orders API",
    packages: &[("nodejs", "18.19.0+dfsg-6~deb12u2"), ("libnode108", "18.19.0+dfsg-6~deb12u2")],
    listens: &[("127.0.0.1", "{appport}")],
    peers: &[("{db}", "5432"), ("{db}", "5432"), ("{client}", "443"), ("{ssm}", "443")],
    config: "/etc/systemd/system/orders-api.service",
    ..SERVICE
};

const CELERY: Service = Service {
    name: "celery",
    path: "/usr/bin/python3.11",
    cmdline: "/usr/bin/python3 /srv/jobs/releases/{release}/bin/celery -A jobs worker -c 4",
    workers: &[
        "/usr/bin/python3 /srv/jobs/releases/{release}/bin/celery -A jobs worker -c 4",
        "/usr/bin/python3 /srv/jobs/releases/{release}/bin/celery -A jobs worker -c 4",
        "/usr/bin/python3 /srv/jobs/releases/{release}/bin/celery -A jobs worker -c 4",
    ],
    user: ("jobs", "1004"),
    unit: "jobs-worker.service",
    description: "Background jobs",
    packages: &[
        ("python3-celery", "5.2.6-5"),
        ("python3-kombu", "5.2.4-2"),
        ("python3-boto3", "1.26.27+dfsg-1"),
    ],
    peers: &[
        ("10.20.248.60", "5672"),
        ("10.20.248.61", "5672"),
        ("{db}", "5432"),
        ("{client}", "443"),
        ("{client}", "443"),
    ],
    config: "/etc/systemd/system/jobs-worker.service",
    ..SERVICE
};

const POSTGRES: Service = Service {
    name: "postgres",
    path: "/usr/lib/postgresql/15/bin/postgres",
    cmdline: "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c config_file=/etc/postgresql/15/main/postgresql.conf",
    workers: &[
        "postgres: 15/main: checkpointer ",
        "postgres: 15/main: background writer ",
        "postgres: 15/main: walwriter ",
        "postgres: 15/main: autovacuum launcher ",
        "postgres: 15/main: shop shop {lb}({eport}) idle",
    ],
    user: ("postgres", "111"),
    unit: "postgresql@15-main.service",
    description: "PostgreSQL Cluster 15-main",
    packages: &[
        ("postgresql-15", "15.8-0+deb12u1"),
        ("postgresql-client-15", "15.8-0+deb12u1"),
        ("postgresql-common", "248"),
    ],
    listens: &[("0.0.0.0", "5432"), ("::", "5432")],
    clients: &[("5432", "{app}"), ("5432", "{app}"), ("5432", "{app}")],
    config: "/etc/postgresql/15/main/postgresql.conf",
    ..SERVICE
};

const REDIS: Service = Service {
    name: "redis-server",
    path: "/usr/bin/redis-server",
    cmdline: "/usr/bin/redis-server 0.0.0.0:6379",
    user: ("redis", "110"),
    unit: "redis-server.service",
    description: "Advanced key-value store",
    packages: &[
        ("redis-server", "5:7.0.15-1~deb12u1"),
        ("redis-tools", "5:7.0.15-1~deb12u1"),
        ("libjemalloc2", "5.3.0-1"),
    ],
    listens: &[("0.0.0.0", "6379")],
    clients: &[("6379", "{app}"), ("6379", "{app}"), ("6379", "{app}")],
    config: "/etc/redis/redis.conf",
    ..SERVICE
};

const RABBIT: Service = Service {
    name: "beam.smp",
    path: "/usr/lib/erlang/erts-13.1.5/bin/beam.smp",
    cmdline: "/usr/lib/erlang/erts-13.1.5/bin/beam.smp -W w -MBas ageffcbf -sname rabbit@{host} -noshell -noinput -s rabbit boot",
    workers: &["erl_child_setup 65536"],
    user: ("rabbitmq", "112"),
    unit: "rabbitmq-server.service",
    description: "RabbitMQ Messaging Server",
    packages: &[("rabbitmq-server", "3.10.8-1.1+deb12u1"), ("erlang-base", "1:25.2.3+dfsg-1")],
    listens: &[("::", "5672"), ("::", "15672"), ("0.0.0.0", "25672")],
    clients: &[("5672", "{app}"), ("5672", "{app}")],
    config: "/etc/rabbitmq/rabbitmq.conf",
    ..SERVICE
};

const EPMD: Service = Service {
    name: "epmd",
    path: "/usr/bin/epmd",
    cmdline: "/usr/bin/epmd -systemd",
    user: ("epmd", "113"),
    unit: "epmd.service",
    description: "Erlang Port Mapper Daemon",
    listens: &[("::", "4369")],
    ..SERVICE
};

const DOCKER: Service = Service {
    name: "dockerd",
    path: "/usr/sbin/dockerd",
    cmdline: "/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock",
    unit: "docker.service",
    description: "Docker Application Container Engine",
    packages: &[
        ("docker.io", "20.10.24+dfsg1-1+deb12u1"),
        ("runc", "1.1.5+ds1-1+deb12u1"),
        ("tini", "0.19.0-1"),
    ],
    peers: &[("{ssm}", "443")],
    config: "/etc/docker/daemon.json",
    ..SERVICE
};

const CONTAINERD: Service = Service {
    name: "containerd",
    path: "/usr/bin/containerd",
    cmdline: "/usr/bin/containerd",
    workers: &[
        "/usr/bin/containerd-shim-runc-v2 -namespace moby -id {own:64:box0} -address /run/containerd/containerd.sock",
        "/usr/bin/containerd-shim-runc-v2 -namespace moby -id {own:64:box1} -address /run/containerd/containerd.sock",
        "/usr/bin/containerd-shim-runc-v2 -namespace moby -id {own:64:box2} -address /run/containerd/containerd.sock",
    ],
    unit: "containerd.service",
    description: "containerd container runtime",
    packages: &[("containerd", "1.6.20~ds1-1+deb12u1")],
    config: "/etc/containerd/config.toml",
    ..SERVICE
};

const SEARCH: Service = Service {
    name: "java",
    path: "/usr/lib/jvm/java-17-openjdk-amd64/bin/java",
    cmdline: "/usr/lib/jvm/java-17-openjdk-amd64/bin/java -Xms2g -Xmx2g -Dsearch.path.home=/usr/share/opensearch -cp /usr/share/opensearch/lib/* org.opensearch.bootstrap.OpenSearch",
    user: ("opensearch", "114"),
    unit: "opensearch.service",
    description: "OpenSearch",
    packages: &[("openjdk-17-jre-headless", "17.0.12+7-2~deb12u1"), ("opensearch", "2.15.0")],
    listens: &[("::", "9200"), ("::", "9300")],
    clients: &[("9200", "{app}"), ("9300", "10.20.248.71")],
    config: "/etc/opensearch/opensearch.yml",
    ..SERVICE
};

const BATCH: Service = Service {
    name: "airflow",
    path: "/usr/bin/python3.11",
    cmdline: "/usr/bin/python3 /opt/airflow/bin/airflow scheduler --pid /run/airflow/{release}.pid",
    workers: &[
        "airflow executor -- LocalExecutor",
        "airflow executor -- LocalExecutor",
        "airflow scheduler -- DagFileProcessorManager",
    ],
    user: ("airflow", "1005"),
    unit: "airflow-scheduler.service",
    description: "Airflow scheduler",
    packages: &[
        ("python3-pandas", "1.5.3+dfsg-2"),
        ("python3-numpy", "1:1.24.2-1"),
        ("postgresql-client-15", "15.8-0+deb12u1"),
    ],
    listens: &[("127.0.0.1", "8793")],
    peers: &[("{db}", "5432"), ("{client}", "443"), ("{client}", "22")],
    config: "/etc/airflow/airflow.cfg",
    ..SERVICE
};

const FAIL2BAN: Service = Service {
    name: "fail2ban-server",
    path: "/usr/bin/python3.11",
    cmdline: "/usr/bin/python3 /usr/bin/fail2ban-server -xf start",
    unit: "fail2ban.service",
    description: "Fail2Ban Service",
    packages: &[
        ("fail2ban", "1.0.2-2"),
        ("libpam-google-authenticator", "20191231-2+b1"),
        ("mosh", "1.4.0-1"),
    ],
    config: "/etc/fail2ban/jail.local",
    ..SERVICE
};

const PROMETHEUS: Service = Service {
    name: "prometheus",
    path: "/usr/bin/prometheus",
    cmdline: "/usr/bin/prometheus --storage.tsdb.retention.time=30d",
    user: ("prometheus", "109"),
    unit: "prometheus.service",
    description: "Monitoring system and time series database",
    packages: &[("prometheus", "2.42.0+ds-5+b5"), ("prometheus-alertmanager", "0.25.0+ds-2+b1")],
    listens: &[("::", "9090")],
    peers: &[("{app}", "9100"), ("{app}", "9100"), ("{app}", "9100"), ("{app}", "9100"), ("{app}", "9100")],
    config: "/etc/prometheus/prometheus.yml",
    ..SERVICE
};

const GRAFANA: Service = Service {
    name: "grafana",
    path: "/usr/share/grafana/bin/grafana",
    cmdline: "/usr/share/grafana/bin/grafana server --config=/etc/grafana/grafana.ini --pidfile=/run/grafana/grafana-server.pid",
    user: ("grafana", "115"),
    unit: "grafana-server.service",
    description: "Grafana instance",
    packages: &[("grafana", "10.4.5")],
    listens: &[("::", "3000")],
    config: "/etc/grafana/grafana.ini",
    ..SERVICE
};

const HAPROXY: Service = Service {
    name: "haproxy",
    path: "/usr/sbin/haproxy",
    cmdline: "/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock",
    workers: &[
        "/usr/sbin/haproxy -sf {n:700-900} -x sockpair@4 -Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid",
    ],
    user: ("haproxy", "116"),
    unit: "haproxy.service",
    description: "HAProxy Load Balancer",
    packages: &[("haproxy", "2.6.12-1+deb12u1"), ("keepalived", "1:2.2.7-1+b2")],
    listens: &[("0.0.0.0", "443"), ("0.0.0.0", "8404")],
    clients: &[("443", "{client}"), ("443", "{client}"), ("443", "{client}"), ("443", "{client}")],
    peers: &[("{app}", "443"), ("{app}", "443"), ("{app}", "443")],
    config: "/etc/haproxy/haproxy.cfg",
};

/// All roles: first those of many hosts with their shares in per cent, then the hosts of their own kind.
pub(super) static ROLES: [Role; 12] = [
    Role { name: "web", share: 26, ..Role::plain(&[]) },
    Role { name: "api", share: 14, ..Role::plain(&[NGINX, NODE]) },
    Role { name: "worker", share: 16, ..Role::plain(&[CELERY]) },
    Role {
        name: "db",
        share: 8,
        mounts: &[("/dev/nvme1n1", "/var/lib/postgresql", "xfs")],
        crons: &[("15", "2", "postgres /usr/local/bin/pg-dump-all --to s3 --quiet", "/etc/cron.d/pg-dump")],
        modules: &[("xfs", "1933312"), ("libcrc32c", "16384")],
        ..Role::plain(&[POSTGRES])
    },
    Role { name: "cache", share: 8, ..Role::plain(&[REDIS]) },
    Role {
        name: "queue",
        share: 7,
        mounts: &[("/dev/nvme1n1", "/var/lib/rabbitmq", "ext4")],
        ..Role::plain(&[RABBIT, EPMD])
    },
    Role {
        name: "container",
        share: 9,
        mounts: &[
            ("overlay", "/var/lib/docker/overlay2/{own:64:box0}/merged", "overlay"),
            ("overlay", "/var/lib/docker/overlay2/{own:64:box1}/merged", "overlay"),
            ("overlay", "/var/lib/docker/overlay2/{own:64:box2}/merged", "overlay"),
        ],
        modules: &[
            ("veth", "36864"),
            ("br_netfilter", "32768"),
            ("xt_conntrack", "16384"),
            ("xt_MASQUERADE", "20480"),
            ("nf_nat", "57344"),
        ],
        containers: &["registry.internal.example/pricing", "registry.internal.example/mailer", "redis"],
        ..Role::plain(&[DOCKER, CONTAINERD])
    },
    Role {
        name: "search",
        share: 6,
        mounts: &[("/dev/nvme1n1", "/var/lib/opensearch", "xfs")],
        modules: &[("xfs", "1933312"), ("libcrc32c", "16384")],
        ..Role::plain(&[SEARCH])
    },
    Role {
        name: "batch",
        share: 6,
        crons: &[
            ("0", "1", "airflow /opt/airflow/bin/rotate-logs --days 14", "/etc/cron.d/airflow"),
            ("*/30", "*", "airflow /opt/airflow/bin/sync-dags --quiet", "/etc/cron.d/airflow"),
        ],
        ..Role::plain(&[BATCH])
    },
    Role { name: "bastion", own_kind: true, ..Role::plain(&[FAIL2BAN]) },
    Role { name: "monitor", own_kind: true, ..Role::plain(&[PROMETHEUS, GRAFANA]) },
    Role { name: "lb", own_kind: true, ..Role::plain(&[HAPROXY]) },
];
