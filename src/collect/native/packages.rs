//! Tables about installed packages.

use std::path::{Path, PathBuf};

use super::accounts;
use super::context::{Context, Gathered, file_name, split_once};

/// Directories that hold Python versions.
const PYTHON: [&str; 4] = ["/usr/lib", "/usr/local/lib", "/usr/local/lib64", "/opt/conda/lib"];

/// Table `deb_packages`.
pub(super) fn deb_packages(context: &Context) -> Gathered {
    let admin = context.path("/var/lib/dpkg");
    if !admin.is_dir() {
        return Gathered::not_supported("this host has no dpkg database");
    }
    let mut gathered = Gathered::of("files");
    let mut files = vec![admin.join("status")];
    // Images without a package manager keep one file for each package.
    let single = gathered.list(context, &admin.join("status.d")).into_iter().map(|(path, _)| path);
    files.extend(single.filter(|path| !file_name(path).ends_with(b".md5sums")));
    for file in files {
        let text = gathered.read(context, &file).unwrap_or_default();
        for package in paragraphs(&text) {
            if !gathered.goes_on(context) {
                break;
            }
            package_row(context, &mut gathered, &admin, &package);
        }
    }
    gathered
}

fn package_row(context: &Context, gathered: &mut Gathered, admin: &Path, package: &[(&[u8], &[u8])]) {
    let value = |key: &[u8]| {
        let found = package.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map_or(&b""[..], |(_, value)| value)
    };
    let version = value(b"Version");
    let revision = memchr::memrchr(b'-', version).map_or(&b""[..], |at| &version[at + 1..]);
    gathered.rows.push(|row| {
        row.text("name", value(b"Package")).text("version", version).text("source", value(b"Source"));
        row.text("size", value(b"Installed-Size")).text("arch", value(b"Architecture"));
        row.text("revision", revision).text("status", value(b"Status"));
        row.text("maintainer", value(b"Maintainer")).text("section", value(b"Section"));
        row.text("priority", value(b"Priority")).text("admindir", context.shown(admin));
    });
}

/// Fields of each paragraph of a Debian control file, without continuation lines; paragraphs without a package left out.
fn paragraphs(text: &[u8]) -> Vec<Vec<(&[u8], &[u8])>> {
    let mut found = vec![Vec::new()];
    for line in text.split(|byte| *byte == b'\n') {
        if line.trim_ascii().is_empty() {
            found.push(Vec::new());
        } else if !line[0].is_ascii_whitespace() {
            let field = split_once(line, b':');
            let field = field.map(|(name, value)| (name, value.trim_ascii()));
            found.last_mut().into_iter().for_each(|paragraph| paragraph.extend(field));
        }
    }
    found.retain(|paragraph| paragraph.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"Package")));
    found
}

/// Table `python_packages`: of the system and of the users' own directories.
pub(super) fn python_packages(context: &Context) -> Gathered {
    let mut gathered = Gathered::of("files");
    let mut libraries: Vec<(PathBuf, u32)> =
        context.real_dirs(&PYTHON).into_iter().map(|dir| (dir, 0)).collect();
    for user in accounts::list(context, &mut gathered) {
        libraries.push((user.home(context).join(".local/lib"), user.uid));
        for (version, _) in gathered.list(context, &user.home(context).join(".pyenv/versions")) {
            libraries.push((version.join("lib"), user.uid));
        }
    }
    for (library, uid) in libraries {
        for (python, _) in gathered.list(context, &library) {
            if file_name(&python).starts_with(b"python") {
                site(context, &mut gathered, &python.join("dist-packages"), uid);
                site(context, &mut gathered, &python.join("site-packages"), uid);
            }
        }
    }
    gathered
}

/// Packages of one directory.
fn site(context: &Context, gathered: &mut Gathered, dir: &Path, uid: u32) {
    for (path, metadata) in gathered.list(context, dir) {
        if !gathered.goes_on(context) {
            return;
        }
        let info = match file_name(&path) {
            name if !metadata.is_dir() || name.starts_with(b".") => continue,
            name if name.ends_with(b".dist-info") => "METADATA",
            name if name.ends_with(b".egg-info") => "PKG-INFO",
            _ => continue,
        };
        let text = gathered.read(context, &path.join(info)).unwrap_or_default();
        let header = text.split(|byte| *byte == b'\n').take_while(|line| !line.trim_ascii().is_empty());
        let fields: Vec<(&[u8], &[u8])> = header.filter_map(|line| split_once(line, b':')).collect();
        let value = |key: &[u8]| {
            fields.iter().find(|(name, _)| *name == key).map_or(&b""[..], |(_, value)| value.trim_ascii())
        };
        gathered.rows.push(|row| {
            row.text("name", value(b"Name")).show("uid", uid).text("version", value(b"Version"));
            row.text("summary", value(b"Summary")).text("author", value(b"Author"));
            row.text("license", value(b"License")).text("path", context.shown(&path));
            row.text("directory", context.shown(dir));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::context::tests::{context, host, rows};
    use super::*;

    #[test]
    fn the_dpkg_status_file_is_read() {
        let text = b"Package: bash\nStatus: install ok installed\nInstalled-Size: 7164\nArchitecture: amd64\nVersion: 1:5.2-15-2+b7\nDescription: x\n Package: fake\n\nPackage: old\nStatus: deinstall ok config-files\n\n\nnonsense\n";
        let found = rows(deb_packages(&context(host(&[("var/lib/dpkg/status", text)]).path())));
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0]["version"], &found[0]["revision"]), (&"1:5.2-15-2+b7".into(), &"2+b7".into()));
        assert_eq!(
            (&found[1]["status"], &found[1]["size"]),
            (&"deinstall ok config-files".into(), &"".into())
        );
    }

    #[test]
    fn python_packages_of_system_and_users_are_listed() {
        let info = b"Metadata-Version: 2.1\nName: req\nVersion: 2.0\nSummary: a: b\n\nName: other\n";
        let dir = host(&[
            ("etc/passwd", b"bob:x:1000:1000::/home/bob:/bin/sh\n"),
            ("usr/lib/python3/dist-packages/req-2.0.egg-info/PKG-INFO", info),
            ("home/bob/.local/lib/python3.11/site-packages/req-2.0.dist-info/METADATA", info),
            ("usr/lib/python3/dist-packages/req/x.py", b""),
        ]);
        let found = rows(python_packages(&context(dir.path())));
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0]["summary"], &found[0]["uid"]), (&"a: b".into(), &"0".into()));
        assert_eq!((&found[1]["name"], &found[1]["uid"]), (&"req".into(), &"1000".into()));
    }
}
