//! Objects of any bucket as files to be read: what `diffy import s3://…` needs, with the credentials of a store.

use std::io::Write;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

use super::place::{Named, StoreConfig};
use super::{s3, told};
use crate::error::{Error, Result};

/// Bytes that a part of a name may have on this machine.
const LONGEST_NAME: usize = 255;
/// Objects that are listed: each becomes a file.
const MOST_OBJECTS: usize = 1_000_000;

/// An object, or all objects with a prefix.
#[derive(Debug)]
pub struct Objects {
    object_store: Arc<dyn ObjectStore>,
    bucket: String,
    prefix: String,
    is_folder: bool,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Its URL.
    pub url: String,
    /// Where it lies below the URL that was named; the name alone where that was the object itself. It never leaves a
    /// directory that it is put below.
    pub below: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970; S3 tells whole seconds.
    pub modified: i64,
    /// What S3 calls its content: another when something else is written.
    pub etag: Option<String>,
    location: String,
}

/// What a URL names.
#[derive(Debug, Default)]
pub struct RemoteFiles {
    /// The objects, by URL.
    pub files: Vec<RemoteFile>,
    /// Objects whose keys cannot be names of files, with the reason.
    pub skipped: Vec<String>,
}

impl Objects {
    /// What an `s3://` URL names; nothing is asked yet but where the bucket is.
    ///
    /// # Errors
    /// The URL names no place on S3, or the bucket cannot be found.
    pub async fn find(url: &str, config: &StoreConfig) -> Result<Self> {
        let Named::S3 { bucket, prefix } = Named::parse(url)? else {
            return Err(Error::usage(format!("`{}` is no place on S3", url.escape_debug())));
        };
        let place = s3::place(bucket.clone(), String::new(), config).await?;
        let object_store = s3::open(&place, config)?;
        Ok(Self { object_store, bucket, prefix, is_folder: url.ends_with('/') })
    }

    /// The objects: the one of that key where there is one, else all below it.
    ///
    /// # Errors
    /// There is none, there are too many, or the bucket cannot be listed.
    pub async fn list(&self) -> Result<RemoteFiles> {
        let failed = |source| told::failed(format!("cannot list `{}`", self.url("")), None, source);
        let prefix = Path::parse(&self.prefix)
            .map_err(|source| Error::usage(format!("`{}` is no key", self.prefix)).source(source))?;
        if !self.prefix.is_empty() && !self.is_folder {
            match self.object_store.head(&prefix).await {
                Ok(meta) => {
                    let name = meta.location.filename().unwrap_or_default().to_owned();
                    let mut found = RemoteFiles::default();
                    self.add(&meta, &name, &mut found);
                    return Ok(found);
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        let mut listed = self.object_store.list((!self.prefix.is_empty()).then_some(&prefix));
        let mut found = RemoteFiles::default();
        while let Some(meta) = listed.try_next().await.map_err(failed)? {
            let below = meta.location.as_ref().strip_prefix(self.prefix.as_str()).unwrap_or_default();
            let below = below.trim_start_matches('/').to_owned();
            self.add(&meta, &below, &mut found);
            if found.files.len() > MOST_OBJECTS {
                return Err(Error::usage(format!(
                    "`{}` names more than {MOST_OBJECTS} objects",
                    self.url("")
                ))
                .hint("name a longer prefix"));
            }
        }
        if found.files.is_empty() && found.skipped.is_empty() {
            return Err(Error::usage(format!("there is nothing at `{}`", self.url("")))
                .hint("it names one object, or the part of keys before a slash"));
        }
        found.files.sort_by(|a, b| a.url.cmp(&b.url));
        Ok(found)
    }

    /// The URL that was named, spelled as those of the objects are.
    pub fn named(&self) -> String {
        self.url("")
    }

    fn url(&self, location: &str) -> String {
        let key = if location.is_empty() { &self.prefix } else { location };
        format!("s3://{}/{key}", self.bucket).escape_debug().to_string()
    }

    fn add(&self, meta: &ObjectMeta, below: &str, found: &mut RemoteFiles) {
        let location = meta.location.as_ref().to_owned();
        let url = self.url(&location);
        match file_name(below) {
            Ok(below) => found.files.push(RemoteFile {
                url,
                below,
                bytes: meta.size,
                modified: meta.last_modified.timestamp_millis(),
                etag: meta.e_tag.clone(),
                location,
            }),
            Err(why) => found.skipped.push(format!("{url}: {why}")),
        }
    }

    /// Copies an object to a new file. What is given back is what was copied: it may have been written again, with the
    /// same size, since it was listed. None when it is gone, or has another size, and no file is left.
    ///
    /// # Errors
    /// The object cannot be read, or the file cannot be written.
    pub async fn fetch(&self, file: &RemoteFile, to: &FilePath) -> Result<Option<RemoteFile>> {
        let cannot = |source| {
            Error::remote(format!("cannot write `{}`", to.display()))
                .source(source)
                .hint("free some space; DIFFY_SPOOL names another directory for stores on S3")
        };
        let unread = |source| told::failed(format!("cannot read `{}`", file.url), None, source);
        let location = Path::parse(&file.location)
            .map_err(|source| Error::data(format!("`{}` is no key", file.url)).source(source))?;
        if let Some(dir) = to.parent() {
            std::fs::create_dir_all(dir).map_err(cannot)?;
        }
        let got = match self.object_store.get(&location).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            got => got.map_err(unread)?,
        };
        let mut copy = std::fs::File::create_new(to).map_err(cannot)?;
        let (modified, etag) = (got.meta.last_modified.timestamp_millis(), got.meta.e_tag.clone());
        let mut bytes = got.into_stream();
        let mut length = 0;
        while let Some(some) = bytes.try_next().await.map_err(unread)? {
            length += some.len() as u64;
            if length > file.bytes {
                break;
            }
            copy.write_all(&some).map_err(cannot)?;
        }
        if length != file.bytes {
            std::fs::remove_file(to).map_err(cannot)?;
            return Ok(None);
        }
        Ok(Some(RemoteFile { modified, etag, ..file.clone() }))
    }
}

/// The key as a path below a directory.
fn file_name(key: &str) -> Result<PathBuf, &'static str> {
    if key.is_empty() || key.ends_with('/') {
        return Err("a folder");
    }
    let is_name = |part: &str| {
        !part.is_empty() && part.len() <= LONGEST_NAME && !part.contains('\0') && !part.contains('\\')
    };
    if !key.split('/').all(is_name) {
        return Err("the key cannot be the name of a file");
    }
    let path = PathBuf::from(key);
    let is_below = path.components().count() == key.split('/').count()
        && path.components().all(|part| matches!(part, Component::Normal(_)));
    if is_below { Ok(path) } else { Err("the key cannot be the name of a file") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_that_are_no_names_are_told() {
        for (key, expect) in [
            ("a.json", true),
            ("host 1/users.json", true),
            ("größe/\u{202E}x", true),
            ("", false),
            ("a/", false),
            ("a//b", false),
            ("../etc/passwd", false),
            ("a/../../b", false),
            ("./a", false),
            ("/etc/passwd", false),
            ("a/\0", false),
        ] {
            assert_eq!(file_name(key).is_ok(), expect, "{key:?}");
        }
        assert!(file_name(&"x".repeat(256)).is_err());
    }

    proptest! {
        #[test]
        fn no_key_leaves_its_directory(key in "(\\.|/|\\.\\.|a|\\PC){0,12}") {
            if let Ok(path) = file_name(&key) {
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
