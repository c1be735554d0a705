//! Numbers and strings as bytes, and back.
//!
//! Owns: the form. Invariant: reading what anybody wrote never panics, and makes nothing larger than what was read. Does not know: messages.

pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn kind(kind: u8) -> Writer {
        Writer(vec![kind])
    }

    pub(crate) fn number(mut self, number: u64) -> Writer {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(crate) fn text(self, text: &str) -> Writer {
        let mut writer = self.number(text.len() as u64);
        writer.0.extend(text.as_bytes());
        writer
    }

    /// A list: how many, and each.
    pub(crate) fn each<T>(self, list: &[T], write: impl Fn(Writer, &T) -> Writer) -> Writer {
        list.iter().fold(self.number(list.len() as u64), write)
    }
}

pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn kind(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    pub(crate) fn each<T>(&mut self, most: usize, read: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= most)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// Whether nothing is left, as behind a whole message.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
