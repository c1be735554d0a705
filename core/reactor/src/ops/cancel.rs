//! Asking the kernel to end an operation early. The operation's own last completion tells when it is over; the cancel's
//! result says nothing that it does not, so success is silent and failure ignored.

use io_uring::{opcode, squeue, types::CancelBuilder};

use crate::token::{Kind, Token};

pub(crate) fn entry(target: Token) -> squeue::Entry {
    finish(opcode::AsyncCancel::new(target.to_bits()).build())
}

/// Cancels everything on the ring.
pub(crate) fn entry_all() -> squeue::Entry {
    finish(opcode::AsyncCancel2::new(CancelBuilder::any()).build())
}

fn finish(entry: squeue::Entry) -> squeue::Entry {
    entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(Token::new(Kind::Cancel, 0, 0).to_bits())
}
