//! A function in a container image: made of this machine's own Python, deployed by the command, answered from inside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::readme::block;
use super::worker::{PATIENCE, Worker, worker_command};

pub(super) const CODE: &str = "
import os, pwd, sys
def handler(event, context):
    def there(path): return os.path.lexists(path)
    def writes(path):
        try:
            open(path, 'w').close()
            return True
        except OSError:
            return False
    return {
        'release': open('/etc/os-release').read(), 'gone': there('/usr/share/gone'), 'kept': there('/usr/share/kept'), 'sbin': os.listdir('/sbin'),
        'shell': there('/bin/sh'), 'python': sys.executable, 'from_image': os.environ.get('FROM_IMAGE'),
        'hosts': open('/etc/hosts').read(), 'pid': os.path.isdir('/proc/self'), 'writes': writes('/usr/share/x'),
        'user': pwd.getpwuid(os.getuid()).pw_name, 'tmp': writes('/tmp/x'), 'null': writes('/dev/null'), 'root': sorted(os.listdir('/')),
    }
";

/// What a command prints; it must succeed.
fn output(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The interpreter, its standard library and every shared library that they need.
fn python_files() -> BTreeSet<PathBuf> {
    let python = Path::new("/usr/bin/python3").canonicalize().expect("this machine has Python");
    let library = output(&python, &["-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]);
    let mut files = BTreeSet::from([python]);
    collect(Path::new(library.trim()), &mut files);
    let loaded: Vec<PathBuf> = files.iter().filter(|path| is_loaded(path)).cloned().collect();
    let arguments: Vec<&str> = loaded.iter().map(|path| path.to_str().expect("a name in UTF-8")).collect();
    let needed = output(Path::new("ldd"), &arguments);
    files.extend(
        needed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from),
    );
    files
}

fn is_loaded(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "so") || path.starts_with("/usr/bin")
}

fn collect(folder: &Path, files: &mut BTreeSet<PathBuf>) {
    const LEFT_OUT: [&str; 7] =
        ["test", "__pycache__", "idlelib", "site-packages", "dist-packages", "ensurepip", "lib2to3"];
    for entry in std::fs::read_dir(folder).expect("the standard library").map(|entry| entry.expect("an entry")) {
        let (kind, path) = (entry.file_type().expect("a kind"), entry.path());
        let is_left_out =
            entry.file_name().to_str().is_none_or(|name| LEFT_OUT.contains(&name) || name.starts_with("config-"));
        if kind.is_dir() && !is_left_out {
            collect(&path, files);
        } else if kind.is_file() {
            files.insert(path);
        }
    }
}

pub(super) fn text_entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, text: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    builder.append_data(&mut header, path, text.as_bytes()).expect("into memory");
}

fn link_entry(builder: &mut tar::Builder<Vec<u8>>, path: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, path, to).expect("into memory");
}

pub(super) fn base_layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut links = BTreeSet::new();
    for path in python_files() {
        // As in Debian: what is in /lib is in /usr/lib.
        let first =
            path.components().nth(1).and_then(|part| part.as_os_str().to_str()).expect("an absolute path").to_owned();
        let name = path.strip_prefix("/").expect("an absolute path");
        let name = if first == "usr" { name.to_owned() } else { Path::new("usr").join(name) };
        if first != "usr" {
            links.insert(first);
        }
        builder.append_path_with_name(&path, name).expect("a file of this machine");
    }
    links.iter().for_each(|name| link_entry(&mut builder, name, &format!("usr/{name}")));
    let python = Path::new("/usr/bin/python3").canonicalize().expect("this machine has Python");
    link_entry(&mut builder, "usr/local/bin/python3", python.to_str().expect("a name in UTF-8"));
    text_entry(&mut builder, "etc/os-release", "ID=debian\nLAYER=1\n");
    text_entry(&mut builder, "usr/share/gone", "");
    text_entry(&mut builder, "usr/share/kept", "");
    builder.into_inner().expect("into memory")
}

pub(super) fn top_layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    text_entry(&mut builder, "etc/os-release", "ID=debian\nLAYER=2\n");
    text_entry(&mut builder, "usr/share/.wh.gone", "");
    // A directory where this machine has a link.
    text_entry(&mut builder, "sbin/tool", "");
    builder.into_inner().expect("into memory")
}

/// Writes an OCI archive of these layers.
pub(super) fn write_image(layers: Vec<Vec<u8>>, path: &Path) {
    write_image_as(&layers, &layers, path);
}

/// The same, but the image says of itself that its layers are others.
fn write_image_as(layers: &[Vec<u8>], claimed: &[Vec<u8>], path: &Path) {
    let mut archive = tar::Builder::new(Vec::new());
    let digest_of =
        |bytes: &[u8]| -> String { Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect() };
    let mut blob = |bytes: &[u8]| {
        let digest = digest_of(bytes);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, format!("blobs/sha256/{digest}"), bytes).expect("into memory");
        serde_json::json!({ "digest": format!("sha256:{digest}"), "size": bytes.len() })
    };
    let layers: Vec<_> = layers.iter().map(|layer| blob(layer)).collect();
    let diff_ids: Vec<_> = claimed.iter().map(|layer| format!("sha256:{}", digest_of(layer))).collect();
    let settings = serde_json::json!({ "Env": ["PATH=/usr/local/bin:/usr/bin", "FROM_IMAGE=yes"] });
    let config = serde_json::json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids }, "config": settings });
    let config = blob(config.to_string().as_bytes());
    let manifest = blob(serde_json::json!({ "config": config, "layers": layers }).to_string().as_bytes());
    text_entry(&mut archive, "oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
    text_entry(&mut archive, "index.json", &serde_json::json!({ "manifests": [manifest] }).to_string());
    std::fs::write(path, archive.into_inner().expect("into memory")).expect("a temporary folder");
}

/// A function with the manifest that the README shows.
pub(super) fn write_function(folder: &Path, name: &str, code: &str) {
    let manifest = block("toml", "image = \"python.tar\"").replace("boxed", name);
    std::fs::write(folder.join("function.toml"), manifest).expect("a temporary folder");
    std::fs::write(folder.join("main.py"), code).expect("a temporary folder");
}

pub(super) fn deploy(worker: &Worker, folder: &Path) {
    let mut command = Command::new(worker_command());
    command.arg("deploy").arg(folder).args(["--server", &format!("http://{}", worker.address)]);
    let output = command.output().expect("the command starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(super) fn images(worker: &Worker) -> usize {
    std::fs::read_dir(worker.state().join("images")).expect("the store").count()
}

#[test]
fn a_function_answers_from_inside_its_image_and_the_image_goes_with_its_last_version() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer(), top_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "boxed", CODE);
    let worker = Worker::start();
    deploy(&worker, folder.path());
    let answer = worker.client().invoke("boxed", b"1").expect(200).json();
    assert_eq!(answer["release"], "ID=debian\nLAYER=2\n", "{answer}");
    assert_eq!((&answer["gone"], &answer["kept"]), (&false.into(), &true.into()), "{answer}");
    assert_eq!((&answer["shell"], &answer["from_image"]), (&false.into(), &"yes".into()), "{answer}");
    assert_eq!(answer["python"], "/usr/local/bin/python3");
    assert!(answer["hosts"].to_string().contains("localhost function"), "{answer}");
    assert_eq!((&answer["pid"], &answer["writes"]), (&true.into(), &false.into()), "{answer}");
    assert_eq!((&answer["tmp"], &answer["null"]), (&true.into(), &true.into()), "{answer}");
    let own = ["dev", "etc", "function", "lib", "lib64", "proc", "sbin", "tmp", "usr", "vilya"];
    assert!(
        answer["root"]
            .as_array()
            .is_some_and(|root| root.iter().all(|name| own.contains(&name.as_str().unwrap_or("")))),
        "{answer}"
    );
    // Another function of the same image shares its directory, which stays as long as one needs it.
    write_function(folder.path(), "second", "def handler(event, context): return 2");
    deploy(&worker, folder.path());
    assert_eq!(worker.client().invoke("second", b"1").expect(200).json(), 2);
    assert_eq!(images(&worker), 1);
    worker.client().request("DELETE", "/v1/functions/boxed", b"").expect(204);
    worker.await_metric("vilya_sandboxes", "", |alive| alive == 1.0);
    assert_eq!(worker.client().invoke("second", b"1").expect(200).json(), 2);
    assert_eq!(images(&worker), 1);
    worker.client().request("DELETE", "/v1/functions/second", b"").expect(204);
    let since = std::time::Instant::now();
    while images(&worker) > 0 {
        assert!(since.elapsed() < PATIENCE, "the image stays");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// A mechanism that is not here says so when a function asks for it, and that is all that can be asked of it then.
fn shows_an_image_as_the_worker_does(mechanism: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![base_layer(), top_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "boxed", CODE);
    let socket = std::env::var("VILYA_TEST_DOCKER_SOCKET").unwrap_or_else(|_| "/var/run/docker.sock".into());
    let worker = Worker::start_with(&[&format!("sandbox.docker_socket={socket}")]);
    deploy(&worker, folder.path());
    let mut native = worker.client().invoke("boxed", b"1").expect(200).json();
    let path = folder.path().join("function.toml");
    let manifest = std::fs::read_to_string(&path).expect("just written");
    let manifest = format!("mechanism = \"{mechanism}\"\n{}", manifest.replace("boxed", "contained"));
    std::fs::write(&path, manifest).expect("a folder");
    let mut command = Command::new(worker_command());
    command.arg("deploy").arg(folder.path()).args(["--server", &format!("http://{}", worker.address)]);
    let output = command.output().expect("the command starts");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(&format!("mechanism = \"{mechanism}\"")), "{said}");
        println!("skipped: {said}");
        return;
    }
    let mut contained = worker.client().invoke("contained", b"1").expect(200).json();
    if mechanism == "docker" {
        // An engine adds two entries of its own, one of them masked; and there is the launcher.
        let names = |answer: &serde_json::Value| -> BTreeSet<String> {
            let root = answer["root"].as_array().expect("a list").iter();
            root.map(|name| name.as_str().expect("a name").to_owned()).collect()
        };
        let more: Vec<String> = names(&contained).difference(&names(&native)).cloned().collect();
        assert_eq!(more, [".dockerenv", ".vilya", "sys"]);
        assert!(names(&contained).is_superset(&names(&native)));
        (contained["root"], native["root"]) = (1.into(), 1.into());
    }
    assert_eq!(contained, native);
}

#[test]
fn a_container_runtime_shows_an_image_as_the_worker_does() {
    shows_an_image_as_the_worker_does("oci");
}

#[test]
fn an_engine_shows_an_image_as_the_worker_does() {
    shows_an_image_as_the_worker_does("docker");
}

#[test]
fn an_image_that_is_refused_leaves_nothing_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write_image(vec![top_layer()], &folder.path().join("python.tar"));
    write_function(folder.path(), "boxed", CODE);
    let worker = Worker::start();
    let answer = refused(&worker, folder.path());
    assert!(answer.contains("no python3"), "{answer}");
    assert_eq!(images(&worker), 0);
    let path = folder.path().join("python.tar");
    let mut bytes = std::fs::read(&path).expect("just written");
    let at = bytes.windows(7).position(|window| window == b"LAYER=2").expect("the layer is plain");
    bytes[at] = b'l';
    std::fs::write(&path, bytes).expect("a temporary folder");
    // What a crash left of an image goes with the next start.
    let state = worker.crash();
    std::fs::create_dir_all(state.path().join("images/.incoming-7/tree")).expect("a folder");
    let worker = Worker::start_on(state, &[]);
    assert_eq!(images(&worker), 0, "a start removes what no function refers to");
    let answer = refused(&worker, folder.path());
    assert!(answer.contains("digest"), "{answer}");
    std::fs::write(&path, b"nothing").expect("a temporary folder");
    assert!(refused(&worker, folder.path()).contains("docker save"));
    assert_eq!(images(&worker), 0);
}

fn refused(worker: &Worker, folder: &Path) -> String {
    let mut command = Command::new(worker_command());
    command.arg("deploy").arg(folder).args(["--server", &format!("http://{}", worker.address)]);
    let output = command.output().expect("the command starts");
    assert!(!output.status.success());
    String::from_utf8(output.stderr).expect("text")
}

/// The names of layers are no secret; who gives them without the layers would otherwise get somebody else's files.
#[test]
fn to_name_the_layers_of_a_stored_image_is_not_to_have_them() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let of = |text: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        text_entry(&mut builder, "usr/bin/python3", text);
        vec![builder.into_inner().expect("into memory")]
    };
    let (theirs, own) = (of("of somebody else"), of("own"));
    let path = folder.path().join("python.tar");
    let worker = Worker::start();
    write_image(theirs.clone(), &path);
    write_function(folder.path(), "theirs", CODE);
    deploy(&worker, folder.path());
    assert_eq!(images(&worker), 1);
    write_image_as(&own, &theirs, &path);
    write_function(folder.path(), "liar", CODE);
    let answer = refused(&worker, folder.path());
    assert!(answer.contains("has digest"), "{answer}");
    assert_eq!(images(&worker), 1, "nothing was made of it, and the honest one stays");
    write_image(theirs, &path);
    write_function(folder.path(), "second", CODE);
    deploy(&worker, folder.path());
    assert_eq!(images(&worker), 1);
}
