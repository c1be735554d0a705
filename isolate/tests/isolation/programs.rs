//! Real programs run: the allow-list must not stand in the way of what runtimes do.

use std::path::Path;

use crate::support::{Ran, Room, python, spec};

fn ran(room: &mut Room, what: &str, mut spec: vilya_isolate::Spec) -> Option<Ran> {
    let program = spec.command[0].clone();
    if !Path::new(&program).exists() {
        println!("not on this host: {program} ({what})");
        return None;
    }
    spec.limits.memory_bytes = 1 << 30;
    spec.limits.processes = 128;
    spec.limits.tmp_bytes = 64 << 20;
    let ran = room.run(&spec);
    assert!(ran.succeeded(), "{what}: {ran:?}");
    Some(ran)
}

/// Each line is one thing that functions do.
const WIDE: &str = r#"
import asyncio, concurrent.futures, ctypes, hashlib, json, mmap, multiprocessing, os, pathlib, queue, random, select, selectors
import shutil, signal, socket, socketserver, sqlite3, ssl, struct, subprocess, sys, tempfile, threading, time, urllib.request, zipfile
def threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool: return sum(pool.map(lambda n: n * n, range(100)))
def processes():
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool: return list(pool.map(abs, [-1, -2]))
def spawned():
    return subprocess.run(["/bin/sh", "-c", "echo one | cat; exit 3"], capture_output=True, start_new_session=True).returncode
async def loop():
    child = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read(); writer.close(); server.close()
    await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(10)))
    return out
def files():
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "a"); path.write_text("x"); path.rename(path.with_name("b"))
        shutil.copy2(path.with_name("b"), path); shutil.copytree(directory, directory + "/c", ignore=shutil.ignore_patterns("c"))
        with zipfile.ZipFile(directory + "/z.zip", "w") as archive: archive.write(path)
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory: memory[0:1] = b"y"
        os.truncate(path, 100); os.utime(path); os.symlink(path, directory + "/l"); os.link(path, directory + "/h")
        return path.stat().st_size
def database():
    connection = sqlite3.connect("/tmp/db"); connection.execute("pragma journal_mode=wal")
    connection.execute("create table t(a)"); connection.executemany("insert into t values(?)", [(n,) for n in range(100)]); connection.commit()
    return connection.execute("select sum(a) from t").fetchone()
def sockets():
    one, other = socket.socketpair(); one.send(b"x"); poll = select.epoll(); poll.register(other, select.EPOLLIN)
    names = socket.getaddrinfo("localhost", 80), socket.if_nameindex()
    return len(poll.poll(1)), other.recv(1), bool(names)
def passed():
    one, other = socket.socketpair(); read, write = os.pipe()
    socket.send_fds(one, [b"x"], [read]); _, fds, _, _ = socket.recv_fds(other, 1, 1); os.write(write, b"y"); return os.read(fds[0], 1)
def signals():
    seen = []; signal.signal(signal.SIGUSR1, lambda *_: seen.append(1)); os.kill(os.getpid(), signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, 0.01); signal.signal(signal.SIGALRM, lambda *_: seen.append(2)); time.sleep(0.2); return seen
def semaphores():
    context = multiprocessing.get_context("fork"); lock = context.Lock(); value = context.Value("i", 0)
    def add():
        with lock: value.value += 1
    children = [context.Process(target=add) for _ in range(3)]; [c.start() for c in children]; [c.join() for c in children]; return value.value
def shared():
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=4096); memory.buf[0] = 7; value = memory.buf[0]; memory.close(); memory.unlink(); return value
def anonymous():
    fd = os.memfd_create("x"); os.write(fd, b"x"); return os.fstat(fd).st_size
def pidfd():
    child = subprocess.Popen(["/bin/true"]); fd = os.pidfd_open(child.pid); select.select([fd], [], []); return child.wait()
def tls(): return bool(ssl.create_default_context().get_ca_certs() is not None)
def identity(): import getpass; return getpass.getuser(), os.path.expanduser("~"), os.uname().nodename
def spread(): return os.cpu_count() > 0 and len(os.sched_getaffinity(0)) > 0
def native(): return ctypes.CDLL(None).getpid()
for check in (threads, processes, spawned, lambda: asyncio.run(loop()), files, database, sockets, passed, signals, semaphores, shared, anonymous, pidfd, tls, identity, spread, native):
    try: print(check.__name__, check())
    except Exception as error: print("FAILED", check.__name__, repr(error)); sys.exit(1)
"#;

#[test]
fn python_does_what_functions_do() {
    let mut room = Room::new();
    let ran = ran(&mut room, "python", python(WIDE)).expect("the tests need /usr/bin/python3");
    assert_eq!(ran.stdout.lines().count(), 17, "{ran:?}");
    let expected = ["threads 328350", "spawned 3", "signals [1, 2]", "semaphores 3", "shared 7", "pidfd 0"];
    for line in expected {
        assert!(ran.stdout.lines().any(|said| said == line), "{line}: {ran:?}");
    }
}

#[test]
fn node_does_what_functions_do() {
    let program = r#"
const fs = require("fs"), { Worker } = require("worker_threads"), { spawnSync } = require("child_process"), net = require("net"), crypto = require("crypto");
fs.writeFileSync("/tmp/a", "x"); fs.watch("/tmp").close();
const child = spawnSync("/bin/echo", ["child"]).stdout.toString().trim();
const server = net.createServer(s => s.end("net")).listen(0, "127.0.0.1", () => {
  net.connect(server.address().port, "127.0.0.1").on("data", data => {
    server.close();
    new Worker("require('worker_threads').parentPort.postMessage(1)", { eval: true }).on("message", message =>
      console.log(child, data.toString(), message, crypto.randomBytes(4).length, require("os").cpus().length > 0));
  });
});
"#;
    let mut room = Room::new();
    if let Some(ran) = ran(&mut room, "node", spec(&["/usr/bin/node", "-e", program])) {
        assert_eq!(ran.stdout, "child net 1 4 true\n");
    }
}

#[test]
fn a_java_machine_starts() {
    let mut room = Room::new();
    let command = ["/usr/bin/java", "-Xmx128m", "-XshowSettings:properties", "-version"];
    if let Some(ran) = ran(&mut room, "java", spec(&command)) {
        assert!(ran.stderr.contains("java.version"), "{ran:?}");
    }
}

#[test]
fn shells_and_tools_work() {
    let script = "set -e; cd /tmp; mkdir a; echo x > a/b; tar cf c.tar a; rm -r a; tar xf c.tar; gzip c.tar; sort a/b | uniq -c; date +%Y > /dev/null; ls -l / > /dev/null; id -un";
    let mut room = Room::new();
    let ran = ran(&mut room, "sh", spec(&["/bin/sh", "-c", script])).expect("every host has /bin/sh");
    assert_eq!(ran.stdout, "      1 x\nfunction\n");
}
