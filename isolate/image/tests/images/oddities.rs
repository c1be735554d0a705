//! What the formats of tar and of layers allow and few builders write: names of names, repetitions, orders.

use std::fs;
use std::os::unix::fs::MetadataExt;

use tar::EntryType;

use crate::builder::{Flattened, entry, file, flatten, layer, link, refusal};

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let bare = format!(" {key}={value}\n").len();
        // The length counts its own digits.
        let length = (bare + 1..).find(|length| length.to_string().len() + bare == *length).unwrap();
        format!("{length} {key}={value}\n")
    };
    entry(EntryType::XHeader, b"pax", b"", 0o644, records.iter().map(record).collect::<String>().as_bytes())
}

fn hard(name: &str, to: &str) -> Vec<u8> {
    entry(EntryType::Link, name.as_bytes(), to.as_bytes(), 0o644, b"")
}

fn directory(name: &str) -> Vec<u8> {
    entry(EntryType::Directory, name.as_bytes(), b"", 0o755, b"")
}

fn taken(layers: &[&[Vec<u8>]]) -> Flattened {
    let flat = flatten(&layers.iter().map(|entries| layer(entries)).collect::<Vec<_>>());
    assert!(flat.result.is_ok(), "{:?}", flat.result);
    flat
}

#[test]
fn names_in_headers_of_their_own_are_held_to_the_same_rules() {
    for (path, why) in [("../evil", "upwards"), ("/evil", "absolute"), ("a/../../evil", "upwards"), ("a\0b", "NUL")] {
        assert!(refusal(&[pax(&[("path", path)]), file("innocent", b"x")]).contains(why), "{path}");
    }
    assert!(refusal(&[file("a", b""), pax(&[("linkpath", "../image.tar")]), hard("b", "a")]).contains("upwards"));
    let long = |kind, name: &[u8]| entry(kind, b"././@LongLink", b"", 0o644, name);
    assert!(refusal(&[long(EntryType::GNULongName, b"../evil\0"), file("x", b"")]).contains("upwards"));
    assert!(refusal(&[long(EntryType::GNULongLink, b"/etc/passwd\0"), hard("x", "y")]).contains("absolute"));
    let flat = taken(&[&[
        pax(&[("path", "first/name"), ("path", "given/name")]),
        file("innocent", b"1"),
        file("after", b"2"),
        entry(EntryType::XGlobalHeader, b"g", b"", 0o644, b"17 path=for/all\n\n"),
        file("last", b"3"),
    ]]);
    assert_eq!((flat.text("given/name"), flat.text("after"), flat.text("last")), ("1".into(), "2".into(), "3".into()));
    assert_eq!(fs::read_dir(flat.root()).unwrap().count(), 3, "a name is the next entry's and no other's");
}

#[test]
fn sizes_and_holes_in_headers_of_their_own_are_refused() {
    assert!(refusal(&[pax(&[("size", "0")]), file("a", b"content")]).contains("a size of its own"));
    let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.name", "a")];
    assert!(refusal(&[pax(&sparse), file("GNUSparseFile.0/a", b"x")]).contains("sparse"));
    assert!(refusal(&[entry(EntryType::GNUSparse, b"a", b"", 0o644, b"")]).contains("sparse"));
}

#[test]
fn names_may_be_long_but_not_endless() {
    let named = |name: &str| [pax(&[("path", name)]), file("x", b"1")];
    let deep = vec!["d".repeat(200); 15].join("/");
    assert_eq!(taken(&[&named(&deep)]).text(&deep), "1");
    assert_eq!(taken(&[&named(&"n".repeat(255))]).text(&"n".repeat(255)), "1");
    for name in ["n".repeat(256), vec!["d".repeat(200); 16].join("/"), vec!["d"; 65].join("/")] {
        assert!(refusal(&named(&name)).contains("too deep, too long"), "{}", name.len());
    }
    let endless = link("l", "x");
    let to = pax(&[("linkpath", &"t/".repeat(1600))]);
    assert!(refusal(&[to, endless]).contains("too long"));
}

#[test]
fn a_header_that_lies_about_its_size_gets_no_further_than_the_layer() {
    let mut huge = file("a", b"x");
    // Base 256: the highest bit of the first byte, then a number of eight bytes.
    huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    let sum: u32 = huge[..512]
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(refusal(&[huge]).contains("cannot read"));
    let mut damaged = file("a", b"x");
    damaged[0] = b'b';
    assert!(refusal(&[damaged]).contains("cannot read"), "the sum of the header is wrong");
}

#[test]
fn of_several_entries_with_one_name_the_last_stays() {
    let flat = taken(&[&[
        file("a", b"1"),
        hard("b", "a"),
        file("a", b"2"),
        file("was/file", b"1"),
        file("was", b"2"),
        file("becomes", b"1"),
        directory("becomes"),
        file("becomes/inner", b"2"),
        link("pointed", "/etc/passwd"),
        file("pointed", b"2"),
        directory("kept"),
        file("kept/inner", b"1"),
        directory("kept"),
    ]]);
    assert_eq!((flat.text("a"), flat.text("b")), ("2".into(), "1".into()), "a link keeps the file that it was made to");
    assert_eq!(fs::metadata(flat.root().join("b")).unwrap().nlink(), 1);
    assert_eq!(
        (flat.text("was"), flat.text("becomes/inner"), flat.text("pointed")),
        ("2".into(), "2".into(), "2".into())
    );
    assert_eq!(flat.text("kept/inner"), "1", "a directory named again keeps what is in it");
}

#[test]
fn hard_links_reach_only_files_of_the_image() {
    let outside = "no file of the image";
    assert!(refusal(&[hard("x", "image.tar")]).contains(outside), "what lies beside the root");
    assert!(refusal(&[directory("d"), hard("x", "d")]).contains(outside));
    assert!(refusal(&[file("a", b""), hard("a", "a")]).contains(outside));
    assert!(refusal(&[link("l", "/etc"), hard("x", "l/passwd")]).contains(outside), "no link is followed");
    assert!(refusal(&[file("d/a", b""), hard("d", "d/a")]).contains("what it replaces"));
    assert!(refusal(&[hard("x", "later"), file("later", b"")]).contains(outside));
    let flat = taken(&[&[file("a", b"1")], &[hard("b", "a"), entry(EntryType::Regular, b".wh.a", b"", 0o644, b"")]]);
    assert_eq!(flat.text("b"), "1", "a link keeps a file whose other name goes");
}

#[test]
fn whiteouts_are_about_earlier_layers_in_whatever_order_they_come() {
    let below = [file("d/old", b"1"), file("d/sub/old", b"1"), file("f", b"1")];
    for above in [
        [file("d/.wh..wh..opq", b""), file("d/sub/new", b"2"), file(".wh.f", b""), file("f", b"2")],
        [file("d/sub/new", b"2"), file("d/.wh..wh..opq", b""), file("f", b"2"), file(".wh.f", b"")],
        [file(".wh.d", b""), file("d/sub/new", b"2"), file("f", b"2"), file(".wh.f", b"")],
        [file("d/sub/new", b"2"), file(".wh.d", b""), file(".wh.f", b""), file("f", b"2")],
    ] {
        let flat = taken(&[&below, &above]);
        assert_eq!((flat.text("d/sub/new"), flat.text("f")), ("2".into(), "2".into()));
        for gone in ["d/old", "d/sub/old", "d/.wh..wh..opq", ".wh.d", ".wh.f"] {
            assert!(!flat.root().join(gone).exists(), "{gone}");
        }
    }
    let flat = taken(&[&below, &[file(".wh..wh..opq", b""), file("only", b"2")], &[file("f", b"3")]]);
    let mut names: Vec<_> = fs::read_dir(flat.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["f", "only"], "the root's own");
    let flat = taken(&[&below, &[file("d/.wh.old", b"")], &[file("d/old", b"3")]]);
    assert_eq!(flat.text("d/old"), "3", "a later layer may bring it back");
}

/// Layers are unpacked one by one: what one does with what another has shows when they are laid together.
#[test]
fn what_a_layer_replaces_for_a_while_it_replaces() {
    let below = [file("d/old", b"1"), file("f", b"1")];
    let flat = taken(&[&below, &[file("d", b"2"), directory("d"), file("d/new", b"2")]]);
    assert!(!flat.root().join("d/old").exists(), "a file was in the place of the directory");
    assert_eq!(flat.text("d/new"), "2");
    let flat = taken(&[&below, &[directory("f"), file("f/inner", b"2")], &[directory("d")]]);
    assert_eq!((flat.text("f/inner"), flat.text("d/old")), ("2".into(), "1".into()));
    let flat = taken(&[&[link("l", "d")], &[directory("l"), file("l/inner", b"2")]]);
    assert_eq!(flat.text("l/inner"), "2", "an entry of its own replaces a link");
    let implied = flatten(&[layer(&[link("l", "d"), directory("d")]), layer(&[file("l/inner", b"2")])]);
    assert!(implied.message().contains("below what is no directory"), "and what only a path implies does not");
}

#[test]
fn hard_links_reach_through_layers_that_are_kept_apart() {
    let flat = taken(&[&[file("a", b"1")], &[hard("b", "a"), hard("c", "b")], &[file("a", b"3"), hard("d", "c")]]);
    assert_eq!(["a", "b", "c", "d"].map(|name| flat.text(name)), ["3", "1", "1", "1"]);
    assert_eq!(fs::metadata(flat.root().join("d")).unwrap().nlink(), 3);
    for gone in [file(".wh.a", b""), file(".wh..wh..opq", b""), directory("a"), link("a", "b")] {
        let refused = flatten(&[layer(&[file("a", b"1")]), layer(&[gone]), layer(&[hard("b", "a")])]);
        assert!(refused.message().contains("no file of the image"), "what a layer took away is nobody's");
    }
    let flat = taken(&[&[file("d/a", b"1")], &[file("d/.wh.a", b"")], &[file("d/a", b"3")], &[hard("b", "d/a")]]);
    assert_eq!(flat.text("b"), "3");
}

#[test]
fn the_bounds_are_of_all_layers_together() {
    use crate::builder::flatten_within;
    use vilya_image::Limits;
    let layers: Vec<_> = (0..3).map(|number| layer(&[file(&number.to_string(), b"1234")])).collect();
    let within = |entries, bytes| flatten_within(&layers, Limits { entries, bytes, ..Limits::default() });
    assert!(within(3, 12).result.is_ok());
    assert!(within(2, 12).message().contains("more than 2 entries"));
    assert!(within(3, 11).message().contains("more than 11 bytes"));
}
