//! SeaweedFS and moto as S3, once for a run of the tests; both end with it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::LazyLock;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use diffy::aws::Aws;
use diffy::store::{S3Settings, StoreConfig};

use crate::env::{Output, TestEnv, output, python, root};

/// The bucket that both servers have.
pub(crate) const BUCKET: &str = "diffy-tests";
/// Access key and secret of who may do all.
pub(crate) const WRITER: (&str, &str) = ("AKIAWRITERWRITERWRIT", "writer-secret-of-the-tests");
/// Access key and secret of who may read the bucket.
pub(crate) const READER: (&str, &str) = ("AKIAREADERREADERREAD", "reader-secret-of-the-tests");

/// Servers that speak S3.
pub(crate) struct Weed {
    /// URL of SeaweedFS, which checks signatures and digests.
    pub(crate) url: String,
    /// URL of moto.
    pub(crate) moto: String,
    /// Its stdin is what keeps the servers alive: it closes when this process ends, however it ends.
    _parent: Child,
}

/// The servers; started by the first test that asks.
pub(crate) fn weed() -> &'static Weed {
    static WEED: LazyLock<Weed> = LazyLock::new(start);
    &WEED
}

fn start() -> Weed {
    let env = TestEnv::new();
    let mut command = env.program(python());
    command.arg(root().join("tests/s3/serve.py")).stdin(Stdio::piped()).stderr(Stdio::inherit());
    command.current_dir(root()).env_remove("TMPDIR");
    let mut parent = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let urls: serde_json::Value = serde_json::from_str(&line).expect("tests/s3/serve.py did not start");
    let url = |name: &str| urls[name].as_str().unwrap().to_owned();
    Weed { url: url("weed"), moto: url("moto"), _parent: parent }
}

/// A prefix of the bucket that no other test has.
pub(crate) fn place(name: &str) -> String {
    let id = diffy::model::SnapshotId::new(diffy::model::now());
    format!("s3://{BUCKET}/{name}-{id}")
}

/// What opens stores at `url` with the keys of [`WRITER`].
pub(crate) fn config(url: &str, spool: &std::path::Path) -> StoreConfig {
    let credentials = Credentials::new(WRITER.0, WRITER.1, None, None, "test");
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    StoreConfig {
        way: Some(Aws::with_sdk(sdk)),
        s3: S3Settings { endpoint: Some(url.to_owned()), checksum: Some(true), ..S3Settings::default() },
        spool_dir: spool.to_owned(),
        ..StoreConfig::default()
    }
}

/// A place to run `diffy` in whose store is on SeaweedFS.
pub(crate) struct OnS3 {
    pub(crate) env: TestEnv,
    pub(crate) store: String,
    variables: Vec<(String, String)>,
}

impl OnS3 {
    pub(crate) fn new(name: &str) -> Self {
        Self::at(TestEnv::new(), place(name), WRITER)
    }

    /// Over a store that another has, with other keys.
    pub(crate) fn at(env: TestEnv, store: String, keys: (&str, &str)) -> Self {
        let variables = [
            ("AWS_ACCESS_KEY_ID", keys.0),
            ("AWS_SECRET_ACCESS_KEY", keys.1),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL_S3", &weed().url),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("DIFFY_STORE", &store),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { env, store, variables }
    }

    /// With one more variable, or another value for one.
    pub(crate) fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the environment says of the place.
    #[cfg(feature = "ballista")]
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    pub(crate) fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.env.diffy(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let ended = output(self.command(args).output().unwrap());
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for (_, secret) in [WRITER, READER] {
            assert!(!said.contains(secret), "diffy {args:?} told a secret");
        }
        assert!(!said.contains("panicked"), "diffy {args:?}\n{said}");
        ended
    }

    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.status, 0, "diffy {args:?}\n{}\n{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Runs `diffy`, which must fail with this in its message.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], with: &str) -> String {
        let ended = self.run(args);
        assert!(
            [1, 2].contains(&ended.status),
            "diffy {args:?} ended with {}\n{}",
            ended.status,
            ended.stdout
        );
        assert!(ended.stderr.contains(with), "diffy {args:?}: no `{with}` in\n{}", ended.stderr);
        assert!(ended.stderr.contains("hint: "), "diffy {args:?}\n{}", ended.stderr);
        ended.stderr
    }
}
