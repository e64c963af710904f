//! Buckets that are missing, closed, elsewhere or not there: each ends with a sentence that says what to do.

use std::net::TcpListener;

use diffy::aws::BucketAt;

use super::weed::{BUCKET, OnS3, READER, WRITER, config, place, weed};
use crate::env::{TestEnv, write_fleet};

const IMPORT: [&str; 4] = ["import", "fleet", "--fleet", "web"];
const LIST: [&str; 2] = ["snapshot", "list"];

fn with_fleet(store: &str, keys: (&str, &str)) -> OnS3 {
    let env = TestEnv::new();
    write_fleet(&env.path("fleet"), 1, 1);
    OnS3::at(env, store.to_owned(), keys)
}

#[test]
fn a_bucket_that_is_missing_is_named() {
    let s3 = with_fleet("s3://diffy-no-such-bucket/x", WRITER);
    for args in [&IMPORT[..], &LIST] {
        s3.fails(args, "there is no bucket `diffy-no-such-bucket`");
    }
}

#[test]
fn who_may_only_read_is_told_so() {
    let writer = with_fleet(&place("closed"), WRITER);
    writer.ok(&IMPORT);
    let reader = with_fleet(&writer.store, READER);
    assert_eq!(reader.ok(&LIST).lines().count(), 1);
    reader.ok(&["query", "SELECT count(*) FROM users"]);
    let told = reader.fails(&IMPORT, "AWS denies `s3:PutObject`");
    assert!(told.contains(BUCKET), "{told}");
    // What was received stays here.
    let recovered = OnS3::at(reader.env, writer.store.clone(), WRITER);
    recovered.ok(&["snapshot", "recover"]);
    assert_eq!(recovered.ok(&LIST).lines().count(), 2);
    let reader = with_fleet(&writer.store, READER);
    let id = reader.ok(&LIST).split_whitespace().next().unwrap().to_owned();
    reader.fails(&["snapshot", "delete", &id], "s3:DeleteObject");
    reader.ok(&["snapshot", "verify"]);
    with_fleet(&place("closed"), READER).fails(&IMPORT, "AWS denies `s3:PutObject`");
}

#[test]
fn keys_that_are_wrong_are_told_from_keys_that_are_missing() {
    let store = place("keys");
    with_fleet(&store, (WRITER.0, "wrong")).fails(&LIST, "does not accept the credentials");
    with_fleet(&store, ("AKIANOBODYNOBODYNOBO", "wrong")).fails(&LIST, "does not accept the credentials");
    let none = with_fleet(&store, WRITER).set("AWS_ACCESS_KEY_ID", "").set("AWS_SECRET_ACCESS_KEY", "");
    none.fails(&LIST, "no AWS credentials were found");
    none.env.write("home/.aws/config", "[profile another]\nregion = eu-west-1\n");
    let profile = none.set("AWS_PROFILE", "no-such-profile");
    profile.fails(&LIST, "no such AWS profile");
}

#[test]
fn a_profile_of_the_configuration_is_used() {
    let s3 =
        with_fleet(&place("profile"), WRITER).set("AWS_ACCESS_KEY_ID", "").set("AWS_SECRET_ACCESS_KEY", "");
    let keys =
        format!("[incident]\naws_access_key_id = {}\naws_secret_access_key = {}\n", WRITER.0, WRITER.1);
    s3.env.write("home/.aws/credentials", keys);
    s3.env.write("diffy.toml", "[aws]\nprofile = \"incident\"\n");
    s3.ok(&IMPORT);
    s3.env.write("diffy.toml", "[aws]\nprofile = \"another\"\n");
    s3.fails(&LIST, "no such AWS profile");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let s3 = with_fleet(&place("nobody"), WRITER).set("AWS_ENDPOINT_URL_S3", &format!("http://{address}"));
    s3.fails(&LIST, &format!("cannot reach S3 at http://{address}"));
}

#[test]
fn a_key_of_kms_needs_a_kms() {
    let s3 = with_fleet(&place("kms"), WRITER);
    s3.env.write("diffy.toml", "[s3]\nkms_key_id = \"alias/incident\"\n");
    s3.fails(&IMPORT, "kms_key_id");
}

#[tokio::test]
async fn the_region_of_a_bucket_is_found_and_a_missing_one_named() {
    let aws = config(&weed().moto, std::path::Path::new("unused")).way.unwrap();
    let at = |bucket| BucketAt { bucket, endpoint: Some(&weed().moto), path_style: true };
    assert_eq!(aws.bucket_region(&at(BUCKET)).await.unwrap(), "us-east-1");
    let missing = aws.bucket_region(&at("diffy-no-such-bucket")).await.unwrap_err().to_string();
    assert!(missing.contains("there is no bucket `diffy-no-such-bucket`"), "{missing}");
}

#[test]
fn what_is_no_place_on_s3_is_not_asked_for() {
    for (store, why) in [
        ("s3:///x", "names no bucket"),
        ("s3://Upper/x", "capitals"),
        ("s3://192.168.0.1/x", "no address"),
        ("s3:/bucket", "two slashes"),
    ] {
        with_fleet(store, WRITER).fails(&IMPORT, why);
    }
    let s3 = with_fleet(&place("x"), WRITER).set("AWS_ENDPOINT_URL_S3", "127.0.0.1:1");
    s3.fails(&LIST, "is no endpoint of S3");
}
