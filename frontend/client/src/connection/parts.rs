//! Answers that are taken as they come.
//!
//! Invariant: no more of an answer than [`Options::window_bytes`](crate::Options::window_bytes) waits to be taken: the server is
//! given credit for what was. What was cut is an error once all that came before was taken, never an end.

use std::time::Instant;

use super::{Connection, after};
use crate::{Answer, Error, Report, Request, Session};

/// What came of an answer and was not taken.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    /// Its body is what was not taken.
    answer: Answer,
    /// Something is there to be taken: the head, bytes, or the end.
    has_news: bool,
    is_over: bool,
    cut: Option<(u16, Vec<u8>)>,
}

impl Untaken {
    pub(super) fn begin(&mut self, head: &Answer) {
        let Answer { id, status, report, ref content_type, .. } = *head;
        let content_type = content_type.clone();
        self.answer = Answer { id, status, report, content_type, body: Vec::new() };
        self.has_news = true;
    }

    pub(super) fn grow(&mut self, bytes: &[u8]) {
        self.answer.body.extend_from_slice(bytes);
        self.has_news = true;
    }

    pub(super) fn cut(&mut self, status: u16, body: &[u8]) {
        self.cut = Some((status, body.to_vec()));
    }

    pub(super) fn end(&mut self) {
        self.has_news = true;
        self.is_over = true;
    }
}

impl Connection {
    /// As [`send`](Self::send), for an answer that [`receive_part`](Self::receive_part) takes, and not
    /// [`receive`](Self::receive). Whether the function answers in parts or whole makes no difference.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_for_parts(&mut self, request: &Request<'_>) -> Result<u64, Error> {
        let id = self.send(request)?;
        self.session.hold(id);
        self.pending[Session::slot(id)].by_parts = true;
        self.awaited -= 1;
        self.untaken.insert(id, Untaken::default());
        Ok(id)
    }

    /// Waits until more has come of an answer than was taken, and puts that alone into the body of `answer`, beside the status,
    /// report and content type of the whole. The first may have an empty body. True: more may come; false: with this the
    /// answer is whole.
    ///
    /// # Errors
    /// [`Error::Cut`] when the answer ended before it was whole; what came before was handed out. The connection failed, or
    /// nothing came for [`Options::timeout`](crate::Options::timeout): the request is cancelled then.
    pub fn receive_part(&mut self, id: u64, answer: &mut Answer) -> Result<bool, Error> {
        let mut deadline = None;
        loop {
            let Some(untaken) = self.untaken.get_mut(&id) else {
                self.still_open()?;
                return Err(Error::Usage("no answer is taken in parts under this number"));
            };
            if untaken.has_news {
                return self.take_part(id, answer);
            }
            let deadline = *deadline.get_or_insert_with(|| after(self.options.timeout));
            if let Err(error) = self.advance(deadline) {
                if matches!(error, Error::TimedOut) {
                    self.cancel(id);
                }
                return Err(error);
            }
        }
    }

    fn take_part(&mut self, id: u64, answer: &mut Answer) -> Result<bool, Error> {
        let Some(untaken) = self.untaken.get_mut(&id) else { return Ok(false) };
        if untaken.answer.body.is_empty()
            && let Some((status, body)) = untaken.cut.take()
        {
            self.untaken.remove(&id);
            return Err(Error::Cut { status, body });
        }
        let Answer { status, report, ref content_type, .. } = untaken.answer;
        (answer.id, answer.status, answer.report) = (id, status, report);
        answer.content_type.clone_from(content_type);
        answer.body.clear();
        std::mem::swap(&mut answer.body, &mut untaken.answer.body);
        // Of one that is cut the reason is still to be told.
        untaken.has_news = untaken.cut.is_some();
        let goes_on = !untaken.is_over || untaken.cut.is_some();
        if !goes_on {
            self.untaken.remove(&id);
        }
        self.session.took(id, answer.body.len());
        Ok(goes_on)
    }

    /// Sends one request and waits for its answer to begin. The parts keep the connection until they are dropped.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`receive_part`](Self::receive_part).
    pub fn parts(&mut self, request: &Request<'_>) -> Result<Parts<'_>, Error> {
        let id = self.send_for_parts(request)?;
        let mut answer = Answer::default();
        let goes_on = self.receive_part(id, &mut answer)?;
        let is_fresh = !answer.body.is_empty();
        Ok(Parts { connection: self, answer, is_fresh, goes_on })
    }
}

/// An answer as it comes. Dropped before its end, it is cancelled.
#[derive(Debug)]
pub struct Parts<'a> {
    connection: &'a mut Connection,
    answer: Answer,
    /// The body was not handed out.
    is_fresh: bool,
    goes_on: bool,
}

impl Parts<'_> {
    /// 200 to 599, as over HTTP. From 400 up the parts are those of an error.
    pub fn status(&self) -> u16 {
        self.answer.status
    }

    /// Type of the payload; empty: the worker did not say.
    pub fn content_type(&self) -> &[u8] {
        &self.answer.content_type
    }

    /// How the worker ran the request, as far as it had when the answer began.
    pub fn report(&self) -> &Report {
        &self.answer.report
    }

    /// Waits for more of the answer; `None` once it is whole. Where one piece ends and the next begins means nothing.
    ///
    /// # Errors
    /// As [`Connection::receive_part`]. What came before is not whole.
    #[expect(clippy::should_implement_trait, reason = "what it gives is borrowed, which no iterator's is")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        while !std::mem::take(&mut self.is_fresh) {
            if !self.goes_on {
                return Ok(None);
            }
            // After an error nothing more comes.
            self.goes_on = false;
            let id = self.answer.id;
            self.goes_on = self.connection.receive_part(id, &mut self.answer)?;
            self.is_fresh = !self.answer.body.is_empty();
        }
        Ok(Some(&self.answer.body))
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        if self.goes_on {
            self.connection.cancel(self.answer.id);
            // Else the function runs on until something else is sent; a connection that is broken has ended it.
            let _ = self.connection.flush_until(Instant::now());
        }
    }
}
