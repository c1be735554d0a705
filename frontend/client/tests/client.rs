//! A client of a worker with several shards.

use std::time::{Duration, Instant};

use vilya_client::peer::{Asked, Peer, Reaction, Settings};
use vilya_client::{Client, Error};

/// Answers which shard was asked.
fn which(asked: &Asked<'_>) -> Reaction {
    Reaction::ok(&asked.shard.to_le_bytes())
}

fn start(map: &[(&str, &[u16])], unreachable: &[u16]) -> Peer {
    let settings = Settings {
        shards: 4,
        map: map.iter().map(|(name, owners)| ((*name).to_owned(), owners.to_vec())).collect(),
        unreachable: unreachable.to_vec(),
        ..Settings::default()
    };
    Peer::start(settings, which).expect("there are ports")
}

fn shard(client: &mut Client, name: &str) -> u16 {
    let answer = client.invoke(name, b"").expect("it is answered");
    u16::from_le_bytes(answer.body.try_into().expect("it is a shard"))
}

#[test]
fn each_request_goes_to_an_owner() {
    let peer = start(&[("one", &[1]), ("both", &[2, 3]), ("near", &[0])], &[]);
    let mut client = Client::connect(peer.address()).expect("the server is there");
    assert_eq!([shard(&mut client, "one"), shard(&mut client, "one")], [1, 1]);
    let mut both = [shard(&mut client, "both"), shard(&mut client, "both")];
    both.sort_unstable();
    assert_eq!(both, [2, 3]);
    assert_eq!(shard(&mut client, "near"), 0);
    // The common one and one for each shard that was needed.
    assert_eq!(peer.connections(), 4);
    // Of 4, by the specification.
    assert_eq!(shard(&mut client, "hello"), 3);
    assert_eq!(peer.connections(), 4);
    assert_eq!(client.map().owners("both"), [2, 3]);
}

#[test]
fn without_direct_connections_there_is_one() {
    let peer = start(&[("one", &[1])], &[]);
    let mut client = Client::builder().direct(false).connect(peer.address()).expect("the server is there");
    assert_eq!([shard(&mut client, "one"), shard(&mut client, "hello")], [0, 0]);
    assert_eq!(peer.connections(), 1);
}

#[test]
fn a_function_that_moves_is_followed() {
    let peer = start(&[("one", &[1])], &[]);
    let mut client = Client::connect(peer.address()).expect("the server is there");
    assert_eq!(shard(&mut client, "one"), 1);
    peer.change_map(&[("one", &[2])]);
    let began = Instant::now();
    // The client looks now and then; how soon is not the point.
    while shard(&mut client, "one") != 2 {
        assert!(began.elapsed() < Duration::from_secs(60), "the change is not followed");
    }
}

#[test]
fn a_shard_that_cannot_be_reached_costs_a_hop() {
    let peer = start(&[("one", &[1]), ("two", &[2])], &[1]);
    let mut client = Client::connect(peer.address()).expect("the server is there");
    assert_eq!([shard(&mut client, "one"), shard(&mut client, "two"), shard(&mut client, "one")], [0, 2, 0]);
}

#[test]
fn a_shard_without_a_port_is_reached_by_the_common_one() {
    let map = vec![("one".to_owned(), vec![1])];
    let settings = Settings { shards: 2, map, portless: vec![0, 1], ..Settings::default() };
    let peer = Peer::start(settings, which).expect("there are ports");
    let mut client = Client::connect(peer.address()).expect("the server is there");
    assert_eq!([shard(&mut client, "one"), shard(&mut client, "one")], [0, 0]);
    assert_eq!((client.map().owners("one"), peer.connections()), (&[1][..], 1));
}

#[test]
fn a_worker_that_is_stopping_is_left_and_asked_again() {
    let react = |asked: &Asked<'_>| match asked.index {
        0 => Reaction::Goaway(503, "stopping"),
        1 => Reaction::ok(b"again"),
        2 => Reaction::Raw(Vec::new()),
        _ => Reaction::ok(b"and again"),
    };
    let peer = Peer::start(Settings::default(), react).expect("there are ports");
    let mut client = Client::connect(peer.address()).expect("the server is there");
    assert_eq!(client.invoke("f", b"").expect("it is answered").status, 503);
    assert_eq!(client.invoke("f", b"").expect("it is answered").body, b"again");
    // A request whose connection is lost may have run: it is not sent again.
    assert!(matches!(client.invoke("f", b""), Err(Error::Closed)));
    assert_eq!(client.invoke("f", b"").expect("it is answered").body, b"and again");
    assert_eq!((peer.requests(), peer.connections()), (4, 3));
}

#[test]
fn a_deadline_and_a_size_are_passed_on() {
    let react = |asked: &Asked<'_>| Reaction::ok(format!("{} {}", asked.deadline_ms, asked.payload.len()).as_bytes());
    let peer = Peer::start(Settings::default(), react).expect("there are ports");
    let builder = Client::builder().deadline(Duration::from_millis(700)).window(1 << 16);
    let builder = builder.timeouts(Duration::from_secs(5), Duration::from_secs(30));
    let mut client = builder.connect(peer.address()).expect("the server is there");
    assert_eq!(client.invoke("f", &vec![0; 3 << 20]).expect("it is answered").body, b"700 3145728");
}

#[test]
fn nobody_there_is_an_error() {
    let peer = start(&[], &[]);
    let mut address = peer.address();
    address.set_port(1);
    assert!(matches!(Client::connect(address), Err(Error::Io(_))));
}
