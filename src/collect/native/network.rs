//! Tables about names and addresses.

use std::net::IpAddr;

use super::context::{Context, Gathered, lines, split_once, words};

/// Table `etc_hosts`.
pub(super) fn etc_hosts(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let text = gathered.read(context, &context.path("/etc/hosts")).unwrap_or_default();
    for line in lines(&text).filter(|line| !line.starts_with(b"#")) {
        let mut words = words(line);
        let address = words.next().unwrap_or_default();
        let names: Vec<&[u8]> = words.take_while(|word| !word.starts_with(b"#")).collect();
        gathered.rows.push(|row| {
            row.text("address", address).text("hostnames", names.join(&b' '));
        });
    }
    gathered
}

/// Table `dns_resolvers`; the resolver's option bits are left unknown.
pub(super) fn dns_resolvers(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let text = gathered.read(context, &context.path("/etc/resolv.conf")).unwrap_or_default();
    let lines: Vec<&[u8]> =
        lines(&text).filter(|line| !line.starts_with(b"#") && !line.starts_with(b";")).collect();
    let values = |key: &[u8]| {
        let found = lines.iter().filter(|line| words(line).next() == Some(key));
        found.map(|line| words(line).skip(1).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let servers = values(b"nameserver").into_iter().filter_map(|line| line.first().copied()).collect();
    // Of several such lines the last one counts.
    let search = values(b"search").pop().or_else(|| values(b"domain").pop()).unwrap_or_default();
    let sorted = values(b"sortlist").pop().unwrap_or_default();
    let kinds: [(&str, Vec<&[u8]>); 3] = [("nameserver", servers), ("sortlist", sorted), ("search", search)];
    for (kind, values) in kinds {
        for (id, value) in values.into_iter().enumerate() {
            let (address, mask) = split_once(value, b'/').unwrap_or((value, b""));
            gathered.rows.push(|row| {
                row.show("id", id).text("type", kind).text("address", address);
                row.text("netmask", if kind == "nameserver" { b"32" } else { mask });
            });
        }
    }
    gathered
}

/// Table `interface_addresses`: of the running system only.
pub(super) fn interface_addresses(context: &Context) -> Gathered {
    if !context.is_live() {
        return Gathered::not_supported("addresses can only be asked of the running system");
    }
    let mut gathered = Gathered::of("interfaces");
    let Some(interfaces) = gathered.attempt(context, &context.path("/"), if_addrs::get_if_addrs()) else {
        return gathered;
    };
    for interface in interfaces {
        let (mask, broadcast) = match &interface.addr {
            if_addrs::IfAddr::V4(v4) => {
                (IpAddr::from(v4.netmask), v4.broadcast.map(|address| address.to_string()))
            }
            if_addrs::IfAddr::V6(v6) => (IpAddr::from(v6.netmask), None),
        };
        gathered.rows.push(|row| {
            row.text("interface", &interface.name).show("address", interface.ip()).show("mask", mask);
            row.text("broadcast", broadcast.unwrap_or_default()).text("type", "unknown");
        });
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn hosts_lose_their_comments() {
        let dir = host(&[("etc/hosts", b"# no\n127.0.0.1\tlocalhost  a # b\n::1\n")]);
        let found = rows(etc_hosts(&context(dir.path())));
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0]["hostnames"], &found[1]["hostnames"]), (&"localhost a".into(), &"".into()));
    }

    #[test]
    fn resolvers_and_search_domains_are_numbered() {
        let text = b"; c\nnameserver 10.0.0.2\ndomain old\nsearch a.b c.d\nnameserver ::1\nsortlist 1.2.3.0/255.255.255.0\n";
        let found = rows(dns_resolvers(&context(host(&[("etc/resolv.conf", text)]).path())));
        let got: Vec<String> =
            found.iter().map(|row| format!("{} {} {}", row["id"], row["type"], row["address"])).collect();
        assert_eq!(
            got.join("|").replace('"', ""),
            "0 nameserver 10.0.0.2|1 nameserver ::1|0 sortlist 1.2.3.0|0 search a.b|1 search c.d"
        );
        assert_eq!(found[2]["netmask"], "255.255.255.0");
    }
}
