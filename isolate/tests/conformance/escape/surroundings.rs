//! What there is to be reached around a sandbox that may reach something, and who reached what else.
//!
//! Owns: a service of the host, and other machines. Invariant: two looks are equal unless somebody reached what is denied. Does not know:
//! attempts.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::socket::sockopt::Ipv6V6Only;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn6, bind, setsockopt, socket};
use serde_json::{Map, Value, json};
use vilya_isolate::{CgroupPreference, EgressOptions, Native, NativeOptions, Reach};

use crate::internet::{HOST, Internet, METADATA, NAMESERVER, PRIVATE, SERVICE, TRAP, run};
use crate::support::{Kind, Room, unique};

/// Connections that one sandbox may have, to the host's loopback and to other machines.
const CONNECTIONS: usize = 64;
/// The first two sandboxes that are let out: the neighbour, and the one that attacks.
const BESIDE: &str = "10.213.0.3";
const GATEWAYS: [&str; 2] = ["10.213.0.2", "10.213.0.4"];
const LINK_LOCAL: &str = "fe80::77";

#[derive(Default)]
pub(super) struct Surroundings {
    reach: Reach,
    told: Map<String, Value>,
    services: Vec<Service>,
    internet: Option<Internet>,
}

impl Surroundings {
    /// Nothing is reached.
    pub(super) fn plain() -> Surroundings {
        Surroundings::default()
    }

    /// A service of the host's loopback is reached, and another is not.
    pub(super) fn with_a_service() -> Surroundings {
        let services = [Service::start(CONNECTIONS), Service::start(0)];
        let told = json!({ "forwarded": services[0].port, "other": services[1].port });
        let reach = Reach::HostLoopback { ports: vec![services[0].port] };
        Surroundings { reach, told: object(told), services: services.into(), internet: None }
    }

    /// Other machines are reached. Runs the test of this name again on a host of its own; none where this one cannot have another.
    pub(super) fn with_machines(test: &str) -> Option<Surroundings> {
        let internet = Internet::around(test)?;
        for address in [BESIDE, GATEWAYS[0], GATEWAYS[1]] {
            run(&format!("ip address add {address}/32 dev lo"));
        }
        run(&format!("ip -6 address add {LINK_LOCAL}/64 dev up0 nodad"));
        let service = Service::start(0);
        let told = json!({
            "host": HOST, "service": SERVICE, "metadata": METADATA, "private": PRIVATE, "nameserver": NAMESERVER, "trap": TRAP,
            "beside": BESIDE, "gateway": GATEWAYS[1], "gateway beside": GATEWAYS[0], "link local": LINK_LOCAL, "other": service.port,
        });
        let reach = Reach::Egress { nameservers: options().nameservers };
        Some(Surroundings { reach, told: object(told), services: vec![service], internet: Some(internet) })
    }

    /// A mechanism that lets sandboxes out. From here on their addresses are theirs.
    pub(super) fn let_out(&mut self) -> Room {
        // One that nobody has reached yet.
        self.services = vec![Service::start(0)];
        self.told["other"] = self.services[0].port.into();
        for address in [BESIDE, GATEWAYS[0], GATEWAYS[1]] {
            run(&format!("ip address del {address}/32 dev lo"));
        }
        let (state, worker_id) = (tempfile::tempdir().expect("a temporary directory"), unique("test"));
        let mut native = Native::new(NativeOptions {
            state_directory: state.path().to_owned(),
            worker_id: worker_id.clone(),
            cgroup: CgroupPreference::Auto,
            mitigations: true,
        })
        .expect("sandboxes can be made here");
        native.allow_egress(options());
        Room { kind: Kind::Native, mechanism: Box::new(native), state, worker_id }
    }

    pub(super) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// What attempts are told of it.
    pub(super) fn told(&self) -> &Map<String, Value> {
        &self.told
    }

    /// Who came where nobody may come.
    pub(super) fn look(&mut self) -> Vec<String> {
        let mut look: Vec<String> = self.services.iter().map(Service::look).collect();
        if let Some(internet) = &mut self.internet {
            let seen: Vec<Vec<Value>> = serde_json::from_str(&internet.seen()).expect("a list");
            let is_denied = |came: &&Vec<Value>| {
                let (at, from, port) = (came[1].as_str(), came[2].as_str(), came[3].as_u64());
                let denied = [METADATA, PRIVATE, TRAP].map(Some).contains(&at);
                denied || at == Some(NAMESERVER) && port != Some(53) || from != Some(HOST)
            };
            look.extend(seen.iter().filter(is_denied).map(|came| format!("{came:?}")));
        }
        look
    }
}

fn options() -> EgressOptions {
    EgressOptions {
        range: "10.213.0.0/16".parse().expect("a range"),
        denied: vec!["10.77.0.0/16".parse().expect("a block")],
        nameservers: vec![NAMESERVER.parse().expect("an address")],
        connections: u32::try_from(CONNECTIONS).expect("few"),
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("an object").clone()
}

/// A service at every address of this host that greets who connects and answers every datagram.
struct Service {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    /// Connections that were one more than may be open.
    more: AtomicUsize,
    datagrams: AtomicUsize,
}

impl Service {
    /// One that may have so many connections at once.
    fn start(may: usize) -> Service {
        let (listener, socket) = same_port();
        let port = listener.local_addr().expect("its address").port();
        let counts = Arc::new(Counts::default());
        let mut sockets = vec![socket];
        // A host without version 6 has none to be reached.
        sockets.extend(version_6(port));
        for socket in sockets {
            let counts = Arc::clone(&counts);
            thread::spawn(move || answer(&socket, &counts));
        }
        let counted = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let counts = Arc::clone(&counted);
                let stream = stream.expect("a connection");
                thread::spawn(move || greet(stream, may, &counts));
            }
        });
        Service { port, counts }
    }

    fn look(&self) -> String {
        // SeqCst: nothing here is in a hurry.
        let [more, datagrams] = [&self.counts.more, &self.counts.datagrams].map(|count| count.load(Ordering::SeqCst));
        format!("{more} connections more than may be, {datagrams} datagrams")
    }
}

fn same_port() -> (TcpListener, UdpSocket) {
    loop {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        if let Ok(socket) = UdpSocket::bind(("0.0.0.0", port)) {
            return (listener, socket);
        }
    }
}

/// At every address of version 6 alone.
fn version_6(port: u16) -> nix::Result<UdpSocket> {
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, Ipv6V6Only, &true)?;
    let address = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
    Ok(UdpSocket::from(socket))
}

fn greet(mut stream: TcpStream, may: usize, counts: &Counts) {
    let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
    counts.more.fetch_add(usize::from(open > may), Ordering::SeqCst);
    // Who has left need not be greeted.
    let _ = stream.write_all(b"the host");
    while stream.read(&mut [0; 64]).is_ok_and(|length| length > 0) {}
    counts.open.fetch_sub(1, Ordering::SeqCst);
}

fn answer(socket: &UdpSocket, counts: &Counts) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        counts.datagrams.fetch_add(1, Ordering::SeqCst);
        let _ = socket.send_to(&buffer[..length.min(64)], peer);
    }
}
