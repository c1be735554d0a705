//! The registry: an embedded ACID database of what is deployed.
//!
//! Invariant: what a call that changes something returned without an error is on disk. One process at a time has the
//! database open. Records are JSON, so that a field can be added without a migration; the schema version guards the rest.
//! It does not know bundles on disk.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use super::images::ImageRecord;
use crate::manifest::Manifest;

const FILE_NAME: &str = "registry.redb";
const FUNCTIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("functions");
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";
const WORKER_KEY: &str = "worker_id";
const NEXT_VERSION_KEY: &str = "next_version";
/// Raised when older workers would misread what this one writes.
const SCHEMA: &str = "1";
const CACHE_BYTES: usize = 16 << 20;
const WORKER_ID_BYTES: usize = 8;

/// A deployed function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// Its name.
    pub name: String,
    /// Grows with every deployment to this worker, of any function; never used twice.
    pub version: u64,
    /// Its manifest.
    pub manifest: Manifest,
    /// Directory of its code, relative to the state directory.
    pub bundle: String,
    /// SHA-256 of the archive, in hexadecimal.
    pub digest: String,
    /// Sum of the files of the bundle.
    pub bundle_bytes: u64,
    /// The image that it runs in.
    #[serde(default)]
    pub image: Option<ImageRecord>,
    /// When it was deployed, in milliseconds since 1970.
    pub deployed_unix_ms: u64,
}

/// Why the registry could not do what was asked. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another process has it open.
    #[error(
        "another worker is using {}: stop it, or give this one a server.state_directory of its own",
        path.display()
    )]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error(
        "the registry {} is damaged ({reason}): restore it from a backup, or move it away and deploy the functions again",
        path.display()
    )]
    Corrupted {
        /// The database file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
    /// It was written by a worker that this one does not understand.
    #[error(
        "the registry {} has schema {found}, this vilya reads schema {SCHEMA}: run the vilya that wrote it, or give this one \
         a server.state_directory of its own",
        path.display()
    )]
    Schema {
        /// The database file.
        path: PathBuf,
        /// The schema found.
        found: String,
    },
    /// The disk said no.
    #[error(
        "cannot use the registry {}: {source}; check that this user may write there and that the disk has room",
        path.display()
    )]
    Disk {
        /// The database file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The database refused for a reason of its own.
    #[error("the registry {} failed: {reason}; restart the worker", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
}

/// The open database.
#[derive(Debug)]
pub struct Registry {
    database: Database,
    path: PathBuf,
    worker_id: String,
    next_version: u64,
}

impl Registry {
    /// Opens the registry in an existing directory, or makes one there.
    pub fn open(directory: &Path) -> Result<Registry, RegistryError> {
        let path = directory.join(FILE_NAME);
        let on_disk = |source| RegistryError::Disk { path: path.clone(), source };
        // Made here, so that only this user can read the functions' variables.
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        drop(opened.map_err(on_disk)?);
        super::sync_directory(directory).map_err(on_disk)?;
        let mut builder = Builder::new();
        // The registry is small, and a file that was altered is to be refused here rather than misread later.
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let database = builder.create(&path).map_err(|error| from_redb(&path, error))?;
        let (worker_id, next_version) = prepare(&database, &path)?;
        Ok(Registry { database, path, worker_id, next_version })
    }

    /// The worker's id: random hexadecimal digits, made once for this state directory.
    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }

    /// The version that the next deployment takes.
    pub fn next_version(&self) -> u64 {
        self.next_version
    }

    /// The record of a function.
    pub fn get(&self, name: &str) -> Result<Option<FunctionRecord>, RegistryError> {
        let bytes = self.try_get(name).map_err(|error| from_redb(&self.path, error))?;
        bytes.map(|bytes| self.decode(name, &bytes)).transpose()
    }

    /// All records, by name.
    pub fn list(&self) -> Result<Vec<FunctionRecord>, RegistryError> {
        let pairs = self.try_list().map_err(|error| from_redb(&self.path, error))?;
        pairs.iter().map(|(name, bytes)| self.decode(name, bytes)).collect()
    }

    /// The number of functions.
    pub fn len(&self) -> Result<u64, RegistryError> {
        use redb::ReadableTableMetadata;
        let read = || -> Result<u64, redb::Error> { Ok(self.database.begin_read()?.open_table(FUNCTIONS)?.len()?) };
        read().map_err(|error| from_redb(&self.path, error))
    }

    /// Whether there are no functions.
    pub fn is_empty(&self) -> Result<bool, RegistryError> {
        Ok(self.len()? == 0)
    }

    /// Writes a record, durably, and takes its version. Gives the record that it replaced.
    pub fn put(&mut self, record: &FunctionRecord) -> Result<Option<FunctionRecord>, RegistryError> {
        let replaced = self.get(&record.name)?;
        let json = serde_json::to_vec(record).expect("a record has only string keys and plain values");
        let next_version = self.next_version.max(record.version + 1);
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(FUNCTIONS)?.insert(record.name.as_str(), json.as_slice())?;
            transaction.open_table(META)?.insert(NEXT_VERSION_KEY, next_version.to_string().as_str())?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| from_redb(&self.path, error))?;
        self.next_version = next_version;
        Ok(replaced)
    }

    /// Removes a record, durably. Gives what was removed.
    pub fn remove(&mut self, name: &str) -> Result<Option<FunctionRecord>, RegistryError> {
        let Some(record) = self.get(name)? else {
            return Ok(None);
        };
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            transaction.open_table(FUNCTIONS)?.remove(name)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| from_redb(&self.path, error))?;
        Ok(Some(record))
    }

    fn try_get(&self, name: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let table = self.database.begin_read()?.open_table(FUNCTIONS)?;
        Ok(table.get(name)?.map(|value| value.value().to_vec()))
    }

    fn try_list(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(FUNCTIONS)?;
        let mut pairs = Vec::new();
        for pair in table.iter()? {
            let (name, value) = pair?;
            pairs.push((name.value().to_owned(), value.value().to_vec()));
        }
        Ok(pairs)
    }

    fn decode(&self, name: &str, bytes: &[u8]) -> Result<FunctionRecord, RegistryError> {
        serde_json::from_slice(bytes).map_err(|error| RegistryError::Corrupted {
            path: self.path.clone(),
            reason: format!("the record of function {name} cannot be read: {error}"),
        })
    }
}

/// Makes the tables if they are missing and checks the schema; gives the worker's id and the next version.
fn prepare(database: &Database, path: &Path) -> Result<(String, u64), RegistryError> {
    let fresh_id = random_hex().map_err(|source| RegistryError::Disk { path: path.to_owned(), source })?;
    let write = || -> Result<(String, String, String), redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(FUNCTIONS)?;
        let values = {
            let mut meta = transaction.open_table(META)?;
            let mut value_or = |key: &str, default: &str| -> Result<String, redb::Error> {
                if let Some(value) = meta.get(key)? {
                    return Ok(value.value().to_owned());
                }
                meta.insert(key, default)?;
                Ok(default.to_owned())
            };
            (value_or(SCHEMA_KEY, SCHEMA)?, value_or(WORKER_KEY, &fresh_id)?, value_or(NEXT_VERSION_KEY, "1")?)
        };
        // What another version wrote is left as it was.
        if values.0 == SCHEMA {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        Ok(values)
    };
    let (schema, worker_id, next_version) = write().map_err(|error| from_redb(path, error))?;
    if schema != SCHEMA {
        return Err(RegistryError::Schema { path: path.to_owned(), found: schema });
    }
    let next_version = next_version.parse().map_err(|_| RegistryError::Corrupted {
        path: path.to_owned(),
        reason: "the next version is not a number".to_owned(),
    })?;
    Ok((worker_id, next_version))
}

fn random_hex() -> std::io::Result<String> {
    let mut bytes = [0; WORKER_ID_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(super::hex(&bytes))
}

fn from_redb(path: &Path, error: impl Into<redb::Error>) -> RegistryError {
    let path = path.to_owned();
    match error.into() {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => RegistryError::Locked { path },
        // How redb says that the file is not one of its own, or ends too early.
        redb::Error::Io(source) if matches!(source.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) => {
            RegistryError::Corrupted { path, reason: source.to_string() }
        }
        redb::Error::Io(source) => RegistryError::Disk { path, source },
        error @ (redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) | redb::Error::RepairAborted) => {
            RegistryError::Corrupted { path, reason: error.to_string() }
        }
        error => RegistryError::Database { path, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, version: u64) -> FunctionRecord {
        let manifest = Manifest::parse(&format!("name = \"{name}\"\nruntime = \"python\"\n")).unwrap();
        FunctionRecord {
            name: name.to_owned(),
            version,
            manifest,
            bundle: format!("bundles/{name}.{version}"),
            digest: "00".repeat(32),
            bundle_bytes: 1,
            image: None,
            deployed_unix_ms: 2,
        }
    }

    #[test]
    fn records_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::open(directory.path()).unwrap();
        let worker_id = registry.worker_id().to_owned();
        assert_eq!(worker_id.len(), 2 * WORKER_ID_BYTES);
        assert_eq!(registry.next_version(), 1);
        assert_eq!(registry.put(&record("b", 1)).unwrap(), None);
        assert_eq!(registry.put(&record("a", 2)).unwrap(), None);
        assert_eq!(registry.put(&record("b", 3)).unwrap(), Some(record("b", 1)));
        drop(registry);
        let mut registry = Registry::open(directory.path()).unwrap();
        assert_eq!(registry.worker_id(), worker_id);
        assert_eq!(registry.next_version(), 4);
        assert_eq!(registry.list().unwrap(), [record("a", 2), record("b", 3)]);
        assert_eq!(registry.get("a").unwrap(), Some(record("a", 2)));
        assert_eq!(registry.remove("a").unwrap(), Some(record("a", 2)));
        assert_eq!(registry.remove("a").unwrap(), None);
        assert_eq!(registry.len().unwrap(), 1);
        drop(registry);
        assert_eq!(Registry::open(directory.path()).unwrap().list().unwrap(), [record("b", 3)]);
    }

    #[test]
    fn two_workers_cannot_share_it() {
        let directory = tempfile::tempdir().unwrap();
        let first = Registry::open(directory.path()).unwrap();
        let refused = Registry::open(directory.path()).unwrap_err();
        assert!(matches!(refused, RegistryError::Locked { .. }), "{refused}");
        assert!(refused.to_string().contains("server.state_directory"));
        drop(first);
        Registry::open(directory.path()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        std::fs::write(&path, b"this is no database, however long it may be").unwrap();
        let refused = Registry::open(directory.path()).unwrap_err();
        assert!(matches!(refused, RegistryError::Corrupted { .. }), "{refused}");
        assert!(refused.to_string().contains("backup"));
    }

    #[test]
    fn an_altered_page_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::open(directory.path()).unwrap();
        registry.put(&record("a", 1)).unwrap();
        drop(registry);
        let path = directory.path().join(FILE_NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        let needle = b"bundles/a.1";
        for at in 0..bytes.len() - needle.len() {
            if bytes[at..].starts_with(needle) {
                bytes[at] ^= 1;
            }
        }
        std::fs::write(&path, bytes).unwrap();
        let refused = Registry::open(directory.path()).unwrap_err();
        assert!(matches!(refused, RegistryError::Corrupted { .. }), "{refused}");
    }

    #[test]
    fn what_was_acknowledged_survives_a_kill() {
        let directory = tempfile::tempdir().unwrap();
        let copy = tempfile::tempdir().unwrap();
        let mut registry = Registry::open(directory.path()).unwrap();
        for version in 1..=5 {
            registry.put(&record("a", version)).unwrap();
            // What the next start finds if the process is killed here: the file, never closed.
            let files = [directory.path(), copy.path()].map(|path| path.join(FILE_NAME));
            std::fs::copy(&files[0], &files[1]).unwrap();
            let after = Registry::open(copy.path()).unwrap();
            assert_eq!(after.list().unwrap(), [record("a", version)]);
            assert_eq!(after.next_version(), version + 1);
        }
    }

    #[test]
    fn a_cut_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::open(directory.path()).unwrap();
        registry.put(&record("a", 1)).unwrap();
        drop(registry);
        let path = directory.path().join(FILE_NAME);
        let length = std::fs::metadata(&path).unwrap().len();
        for length in [length - 4096, length / 2, 4096, 100] {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let refused = Registry::open(directory.path()).unwrap_err();
            assert!(matches!(refused, RegistryError::Corrupted { .. }), "{length}: {refused}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let registry = Registry::open(directory.path()).unwrap();
        let transaction = registry.database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert(SCHEMA_KEY, "2").unwrap();
        transaction.commit().unwrap();
        drop(registry);
        let refused = Registry::open(directory.path()).unwrap_err();
        assert!(matches!(&refused, RegistryError::Schema { found, .. } if found == "2"), "{refused}");
    }

    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let _registry = Registry::open(directory.path()).unwrap();
        let mode = std::fs::metadata(directory.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
