//! A word to another ring (`MSG_RING`).
//!
//! The kernel carries 64 bits of user data and 32 bits of result. The user data keeps the token's kind, so that no word
//! can be mistaken for a completion; the word rides in the token's generation (low half) and the result (high half).

use io_uring::{opcode, squeue, types::Fd};

use super::Reply;
use crate::token::{Kind, Token};

pub(crate) fn entry(ring_fd: i32, value: u64, posted: Token) -> squeue::Entry {
    let arrived = Token::new(Kind::Arrived, 0, value as u32);
    let high = (value >> 32) as u32 as i32;
    opcode::MsgRingData::new(Fd(ring_fd), high, arrived.to_bits(), None)
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(posted.to_bits())
}

/// The word of a message that arrived.
pub(crate) fn value(arrived: Token, reply: Reply) -> u64 {
    u64::from(reply.result as u32) << 32 | u64::from(arrived.generation())
}
