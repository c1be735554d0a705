//! A sandbox beside the one that does harm: it answers what it is asked, and so shows that it is well.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vilya_isolate::{Exit, Spec};

use crate::support::{Room, Running, null, python};

const PATIENCE: Duration = Duration::from_secs(120);
const ANSWERS: &str = "import os\nwhile word := os.read(3, 64): os.write(3, word)";

pub(crate) struct Neighbour {
    running: Running,
    channel: UnixStream,
}

impl Neighbour {
    pub(crate) fn start(room: &mut Room) -> Neighbour {
        Neighbour::of(room, &python(ANSWERS))
    }

    /// One that does more than to answer five bytes with five, on its descriptor 3.
    pub(crate) fn of(room: &mut Room, spec: &Spec) -> Neighbour {
        let (channel, theirs) = UnixStream::pair().expect("a pair of sockets");
        channel.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let running = room.start_with(spec, [theirs.into(), null(), null()]).expect("it starts");
        Neighbour { running, channel }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.running.started.pid
    }

    pub(crate) fn is_well(&mut self) {
        assert_eq!(&self.asked(b"well?"), b"well?");
    }

    pub(crate) fn asked(&mut self, question: &[u8; 5]) -> [u8; 5] {
        self.channel.write_all(question).expect("the neighbour listens");
        let mut word = [0; 5];
        self.channel.read_exact(&mut word).expect("the neighbour answers");
        word
    }

    /// Tells it to end.
    pub(crate) fn end(self) {
        drop(self.channel);
        let ran = self.running.finish();
        assert_eq!(ran.ended.exit, Exit::Code(0), "the neighbour ends when it is told to: {ran:?}");
        assert!(ran.ended.left_behind.is_empty(), "{ran:?}");
    }
}
