//! Which host keys are believed, on the way through jump hosts too.

use super::farm::{Farm, Manners};

#[test]
fn no_configuration_makes_an_unknown_key_known_unless_it_is_asked_for() {
    let farm = Farm::new(&[
        ("known", Manners::Good),
        ("unknown", Manners::UnknownKey),
        ("other", Manners::OtherKey),
    ]);
    let config = std::fs::read_to_string(farm.env.path("ssh_config")).unwrap();
    farm.env.write("ssh_config", format!("{config}StrictHostKeyChecking accept-new\n"));
    let before = std::fs::read(farm.env.path("known_hosts")).unwrap();
    farm.run(&["--tables", "users"]);
    farm.expect("known", "ok", "");
    farm.expect("unknown", "undeliverable", "known_hosts has no key for it");
    farm.expect("other", "undeliverable", "is another one than known_hosts has");
    assert_eq!(std::fs::read(farm.env.path("known_hosts")).unwrap(), before);
    let output = farm.run(&["--tables", "users", "--host-keys", "config"]);
    assert!(output.stderr.contains("as far as the SSH configuration wants it"), "{}", output.stderr);
    farm.expect("unknown", "ok", "");
    // Not more than the configuration.
    farm.expect("other", "undeliverable", "is another one than known_hosts has");
}

#[test]
fn a_jump_host_is_used_and_its_key_is_checked() {
    let farm = Farm::new(&[("jump", Manners::Good), ("web-1", Manners::Good), ("web-2", Manners::Good)]);
    let config = std::fs::read_to_string(farm.env.path("ssh_config")).unwrap();
    let [jump, first, second] = ["jump", "web-1", "web-2"].map(|name| farm.find(name).port);
    let blocks = format!(
        "Host web-1\n HostName 127.0.0.1\n Port {first}\n ProxyJump 127.0.0.1:{jump}\n\
         Host web-2\n HostName 127.0.0.1\n Port {second}\n ProxyJump localhost:{jump}\n"
    );
    farm.env.write("ssh_config", format!("{config}{blocks}"));
    // The list is the configuration itself.
    let args = ["collect", "--targets", "hosts:ssh_config", "--fleet", "web", "--tables", "users"];
    let output = farm.env.run(&[&args[..], &["--ssh-config", "ssh_config"]].concat());
    assert_eq!(output.status, 0, "{}", output.stderr);
    farm.expect("web-1", "ok", "");
    // Nobody is asked whether the key of `localhost` is right.
    let (status, why) = farm.coverage("web-2", "users");
    assert_eq!(status, "undeliverable", "{why}");
    assert!(why.contains("key"), "{why}");
}
