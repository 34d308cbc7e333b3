//! The S3 servers that `tests/run` starts: a bucket of a test's own, and what lies in it, seen by the `s3` crate's plain
//! calls and not by our target.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use s3::command::Command;
use s3::creds::Credentials;
use s3::request::Request;
use s3::request::blocking::AttoRequest;
use s3::{BucketConfiguration, Region};
use voxeltron_backup::secret::Secret;
use voxeltron_backup::target::http::Patience;
use voxeltron_backup::target::retry::Policy;
use voxeltron_backup::target::s3::{Keys, S3, Settings};
use voxeltron_backup::world::World;

use super::from_runner;

pub fn endpoint() -> String {
    from_runner("VOXELTRON_TEST_S3_ENDPOINT")
}

/// `HOST:PORT` of the server.
pub fn address() -> String {
    address_of(&endpoint())
}

/// `HOST:PORT` of an endpoint.
pub fn address_of(endpoint: &str) -> String {
    endpoint.split_once("://").map_or_else(String::new, |(_, address)| address.to_owned())
}

pub fn access_key() -> String {
    from_runner("VOXELTRON_TEST_S3_ACCESS_KEY")
}

pub fn secret_key() -> String {
    from_runner("VOXELTRON_TEST_S3_SECRET_KEY")
}

pub fn keys() -> Keys {
    Keys { access: Secret::new(access_key()), secret: Secret::new(secret_key()), token: None }
}

/// A bucket of the test's own. It stays, empty or not, until the server is stopped and its folder removed.
#[derive(Debug)]
pub struct Bucket {
    pub name: String,
    /// The server's.
    pub endpoint: String,
    raw: Box<s3::Bucket>,
}

impl Bucket {
    pub fn new() -> Self {
        Self::with(endpoint(), &[])
    }

    /// One on the other server, of other people.
    pub fn second() -> Self {
        Self::with(from_runner("VOXELTRON_TEST_S3_SECOND"), &[])
    }

    /// One on SeaweedFS, which looks at a condition and writes in one step.
    pub fn seaweed() -> Self {
        Self::with(from_runner("VOXELTRON_TEST_S3_SEAWEED"), &[])
    }

    /// One whose objects can be locked.
    pub fn lockable() -> Self {
        Self::with(endpoint(), &[("x-amz-bucket-object-lock-enabled", "true")])
    }

    /// One on SeaweedFS, whose objects can be locked, and have versions then, as at AWS.
    pub fn lockable_with_versions() -> Self {
        let endpoint = from_runner("VOXELTRON_TEST_S3_SEAWEED");
        Self::with(endpoint, &[("x-amz-bucket-object-lock-enabled", "true")])
    }

    fn with(endpoint: String, headers: &[(&'static str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let region = Region::Custom { region: "us-east-1".to_owned(), endpoint: endpoint.clone() };
        let keys = Credentials::new(Some(&access_key()), Some(&secret_key()), None, None, None).unwrap();
        let raw = s3::Bucket::new(&name, region, keys).unwrap().with_path_style();
        // The crate's own call names the region, which AWS and its like refuse for this one.
        let command = Command::CreateBucket { config: BucketConfiguration::default() };
        let mut asking = raw.clone();
        for (name, value) in headers {
            asking.add_header(name, value);
        }
        AttoRequest::new(&asking, "", command).unwrap().response_data(false).unwrap();
        Self { name, endpoint, raw }
    }

    /// Settings with short pauses, and parts of 5 MiB.
    pub fn settings(&self, prefix: &str) -> Settings {
        let ms = Duration::from_millis;
        Settings {
            part_mib: 5,
            policy: Policy { attempts: 5, first: ms(20), longest: ms(200), longest_asked: ms(300) },
            patience: Patience { connect: ms(2_000), answer: ms(4_000), completion: ms(8_000), ..Patience::default() },
            ..Settings::new("s3", &self.endpoint, &self.name, prefix)
        }
    }

    pub fn target(&self, prefix: &str) -> S3 {
        self.settings(prefix).open(&keys(), &World::system()).unwrap()
    }

    /// Every key, as it stands in the bucket.
    pub fn keys(&self) -> Vec<String> {
        let pages = self.raw.list(String::new(), None).unwrap();
        pages.into_iter().flat_map(|page| page.contents).map(|object| object.key).collect()
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        assert_eq!(self.raw.put_object(key, bytes).unwrap().status_code(), 200);
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        self.raw.get_object(key).unwrap().to_vec()
    }

    /// A header of every object in the bucket.
    pub fn head(&self, header: &str) -> Vec<String> {
        let head = |key: &String| {
            let request = AttoRequest::new(&self.raw, key, Command::HeadObject).unwrap();
            let answer = request.response_header().unwrap().0;
            answer.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        self.keys().iter().map(head).collect()
    }

    pub fn delete(&self, key: &str) {
        self.raw.delete_object(key).unwrap();
    }

    /// The keys of uploads that are not finished.
    pub fn unfinished(&self) -> Vec<String> {
        let pages = match self.raw.list_multiparts_uploads(None, None) {
            // The second server's answer where there is none.
            Err(error) if error.to_string().contains("NoSuchUpload") => return Vec::new(),
            pages => pages.unwrap(),
        };
        pages.into_iter().flat_map(|page| page.uploads).map(|upload| upload.key).collect()
    }

    /// Begins an upload and leaves it.
    pub fn begin(&self, key: &str) -> String {
        self.raw.initiate_multipart_upload(key, "application/octet-stream").unwrap().upload_id
    }

    /// Makes an unfinished upload an hour older: the server has it as a folder of that name.
    pub fn age(&self, id: &str) {
        self.age_by(id, Duration::from_secs(3600));
    }

    /// Makes all unfinished uploads older.
    pub fn age_unfinished(&self, by: Duration) {
        let pages = self.raw.list_multiparts_uploads(None, None).unwrap();
        pages.into_iter().flat_map(|page| page.uploads).for_each(|upload| self.age_by(&upload.id, by));
    }

    fn age_by(&self, id: &str, by: Duration) {
        let root = std::path::PathBuf::from(from_runner("VOXELTRON_TEST_S3_ROOT")).join(&self.name);
        let found = find(&root, id).unwrap_or_else(|| panic!("no upload {id} below {}", root.display()));
        File::open(found).unwrap().set_modified(SystemTime::now() - by).unwrap();
    }
}

fn find(folder: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|found| found == name) {
            return Some(path);
        }
        if path.is_dir()
            && let Some(found) = find(&path, name)
        {
            return Some(found);
        }
    }
    None
}
