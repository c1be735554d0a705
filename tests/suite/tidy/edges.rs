//! Which package may know which. The table is exact: an edge that is not in it fails, and so does an entry without its
//! edge, so that the table can be read as the picture of the house.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::{SourceFile, Violation, files, hold, root_file};

/// A package and the packages of this workspace that it depends on.
struct Package {
    name: &'static str,
    knows: Knows,
    /// What only its own tests know besides.
    tests_know: &'static [&'static str],
}

#[derive(Clone, Copy)]
enum Knows {
    Exactly(&'static [&'static str]),
    /// Stands outside the product and may look at any of it.
    Anything,
}

const fn package(name: &'static str, knows: &'static [&'static str]) -> Package {
    Package { name, knows: Knows::Exactly(knows), tests_know: &[] }
}

const fn outside(name: &'static str) -> Package {
    Package { name, knows: Knows::Anything, tests_know: &[] }
}

#[rustfmt::skip]
const PACKAGES: &[Package] = &[
    package("vilya-engine", &[]),
    package("vilya-reactor", &[]),
    package("vilya-image", &[]),
    package("vilya-distribution", &[]),
    package("vilya-ipc", &[]),
    package("vilya-protocol", &[]),
    Package { tests_know: &["vilya-ipc"], ..package("vilya-isolate", &[]) },
    Package { name: "vilya-client", knows: Knows::Exactly(&["vilya-protocol"]), tests_know: &["vilya-protocol"] },
    package("vilya-runtime", &["vilya-ipc"]),
    package("vilya-c", &["vilya-runtime"]),
    package("vilya-node", &["vilya-runtime"]),
    package("vilya-example-thumbnail", &["vilya-runtime"]),
    package("vilya-gpu", &["vilya-engine"]),
    package("vilya-worker", &["vilya-distribution", "vilya-engine", "vilya-image", "vilya-ipc", "vilya-isolate", "vilya-protocol", "vilya-reactor"]),
    Package { name: "vilya", knows: Knows::Exactly(&["vilya-client", "vilya-protocol", "vilya-worker"]), tests_know: &["vilya-client"] },
    outside("vilya-benches"),
    outside("vilya-tests"),
    outside("vilya-fuzz"),
];

/// The package that must stay pure.
const ENGINE: &str = "vilya-engine";

#[test]
fn packages_know_only_what_the_table_says() {
    hold(&broken_edges(&manifests(), PACKAGES));
}

#[test]
fn the_engine_is_pure() {
    let manifests = manifests();
    let (_, manifest) = manifests.iter().find(|(_, manifest)| name_of(manifest) == ENGINE).expect("there is an engine");
    let library = root_file("core/engine/src/lib.rs");
    hold(&impurities(manifest, &library));
}

#[test]
fn every_member_inherits_the_lints() {
    let members = members();
    let without = manifests().into_iter().filter(|(path, manifest)| is_member(path, &members) && !inherits(manifest));
    hold(&without.map(|(path, _)| format!("{path}: add `[lints] workspace = true`")).collect::<Vec<_>>());
}

#[test]
fn every_manifest_is_a_member() {
    let (members, excluded) = (members(), listed("exclude"));
    let strays = manifests().into_iter().filter(|(path, _)| !is_member(path, &members) && !is_member(path, &excluded));
    hold(
        &strays.map(|(path, _)| format!("{path}: neither a member of the workspace nor excluded")).collect::<Vec<_>>(),
    );
}

/// Every package manifest of the tree, by path.
fn manifests() -> Vec<(String, Table)> {
    let parse = |file: SourceFile| {
        let table: Table = file.text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.path));
        (file.path, table)
    };
    let named = files(&["toml"]).into_iter().filter(|file| file.path.ends_with("/Cargo.toml"));
    named.map(parse).collect()
}

fn members() -> Vec<String> {
    listed("members")
}

/// A list of folders in the workspace's table.
fn listed(key: &str) -> Vec<String> {
    let root: Table = root_file("Cargo.toml").parse().expect("the root manifest is TOML");
    let list = root["workspace"][key].as_array().expect("a list of folders");
    list.iter().map(|folder| folder.as_str().expect("a folder").to_owned()).collect()
}

fn is_member(path: &str, folders: &[String]) -> bool {
    folders.iter().any(|folder| path == format!("{folder}/Cargo.toml"))
}

fn inherits(manifest: &Table) -> bool {
    manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool) == Some(true)
}

fn name_of(manifest: &Table) -> &str {
    manifest["package"]["name"].as_str().expect("a package has a name")
}

/// The dependencies of one kind, target-specific ones included, under the names of their packages.
pub(super) fn dependencies(manifest: &Table, kinds: &[&str]) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
    let places = std::iter::once(manifest).chain(targets.filter_map(Value::as_table));
    let tables = places.flat_map(|place| kinds.iter().filter_map(|kind| place.get(*kind).and_then(Value::as_table)));
    let named =
        tables.flatten().map(|(key, value)| value.get("package").and_then(Value::as_str).unwrap_or(key).to_owned());
    named.collect()
}

fn broken_edges(manifests: &[(String, Table)], packages: &[Package]) -> Vec<Violation> {
    let ours: BTreeSet<&str> = manifests.iter().map(|(_, manifest)| name_of(manifest)).collect();
    let by_name: BTreeMap<&str, &Package> = packages.iter().map(|package| (package.name, package)).collect();
    let is_outside = |name: &str| by_name.get(name).is_some_and(|package| matches!(package.knows, Knows::Anything));
    let mut broken = Vec::new();
    for (path, manifest) in manifests {
        let Some(package) = by_name.get(name_of(manifest)) else {
            broken.push(format!("{path}: the table of packages does not have it"));
            continue;
        };
        // A package that names itself turns on a feature for its own tests: no edge.
        let is_edge = |name: &String| ours.contains(name.as_str()) && name != package.name;
        let within = |kinds: &[&str]| -> BTreeSet<String> {
            dependencies(manifest, kinds).into_iter().filter(is_edge).collect()
        };
        let knows = within(&["dependencies", "build-dependencies"]);
        let forbidden = knows.iter().filter(|name| is_outside(name));
        broken.extend(forbidden.map(|name| format!("{path}: nothing may depend on {name}")));
        if let Knows::Exactly(allowed) = package.knows {
            broken.extend(differences(path, &knows, allowed, "dependency"));
            broken.extend(differences(path, &within(&["dev-dependencies"]), package.tests_know, "dev-dependency"));
        }
    }
    let absent = packages.iter().filter(|package| !ours.contains(package.name));
    broken.extend(absent.map(|package| format!("the table has {}, which does not exist", package.name)));
    broken
}

fn differences(path: &str, found: &BTreeSet<String>, allowed: &[&str], kind: &str) -> Vec<Violation> {
    let extra = found.iter().filter(|name| !allowed.contains(&name.as_str()));
    let extra =
        extra.map(|name| format!("{path}: {kind} on {name} is not in the table: change the design or the code"));
    let unused = allowed.iter().filter(|name| !found.contains(**name));
    let unused = unused.map(|name| format!("{path}: the table has a {kind} on {name} that is not used: take it out"));
    extra.chain(unused).collect()
}

/// What would let the engine reach a clock, a thread or unsafe code.
fn impurities(manifest: &Table, library: &str) -> Vec<Violation> {
    let dependencies = dependencies(manifest, &["dependencies", "build-dependencies"]);
    let depends = dependencies.iter().map(|name| format!("{ENGINE} depends on {name}: it depends on nothing"));
    let attributes = ["#![no_std]", "#![forbid(unsafe_code)]"]
        .into_iter()
        .filter(|attribute| !library.lines().any(|line| line.trim() == *attribute));
    depends.chain(attributes.map(|attribute| format!("{ENGINE}: its lib.rs must say `{attribute}`"))).collect()
}

#[cfg(test)]
mod can_fail {
    use super::*;

    fn manifest(name: &str, rest: &str) -> (String, Table) {
        let text = format!("[package]\nname = \"{name}\"\n{rest}");
        (format!("{name}/Cargo.toml"), text.parse().unwrap())
    }

    const TABLE: &[Package] = &[
        package("low", &[]),
        Package { name: "high", knows: Knows::Exactly(&["low"]), tests_know: &["side"] },
        package("side", &[]),
        outside("checks"),
    ];

    fn broken(high: &str, low: &str) -> Vec<Violation> {
        let manifests = [
            manifest("low", low),
            manifest("high", high),
            manifest("side", ""),
            manifest("checks", "[dependencies]\nlow = {}"),
        ];
        broken_edges(&manifests, TABLE)
    }

    const HIGH: &str = "[dependencies]\nlow.workspace = true\nserde = \"1\"\n[dev-dependencies]\nside = {}\n";

    #[test]
    fn an_edge_that_is_not_in_the_table_or_not_in_the_tree() {
        assert_eq!(broken(HIGH, ""), Vec::<String>::new());
        assert_eq!(broken(HIGH, "[dependencies]\nhigh = {}").len(), 1);
        assert_eq!(broken(HIGH, "[target.'cfg(unix)'.dependencies]\nhigh = {}").len(), 1);
        assert_eq!(broken(HIGH, "[build-dependencies]\nx = { package = \"high\" }").len(), 1);
        assert_eq!(broken(HIGH, "[dev-dependencies]\nhigh = {}").len(), 1);
        assert_eq!(broken(HIGH, "[dev-dependencies]\nlow = {}").len(), 0, "itself");
        assert_eq!(broken("[dependencies]\nlow = {}", "").len(), 1, "the test edge is gone");
        assert_eq!(broken("[dev-dependencies]\nside = {}", "").len(), 1, "the edge is gone");
        assert_eq!(broken("[dependencies]\nlow = {}\nside = {}", "").len(), 2, "a test edge is no edge");
        assert_eq!(broken(HIGH, "[dependencies]\nchecks = {}").len(), 2, "outside, and not in the table");
    }

    #[test]
    fn a_package_that_is_not_in_the_table_or_not_in_the_tree() {
        let mut manifests = vec![manifest("low", ""), manifest("side", ""), manifest("checks", "")];
        assert_eq!(broken_edges(&manifests, TABLE), ["the table has high, which does not exist"]);
        manifests.push(manifest("new", ""));
        assert_eq!(broken_edges(&manifests, TABLE).len(), 2);
    }

    #[test]
    fn an_engine_that_is_not_pure() {
        let pure = "#![no_std]\n#![forbid(unsafe_code)]\n";
        let impure = |rest: &str, library: &str| impurities(&manifest(ENGINE, rest).1, library).len();
        assert_eq!(impure("", pure), 0);
        assert_eq!(impure("[dev-dependencies]\nproptest = \"1\"", pure), 0);
        assert_eq!(impure("[dependencies]\nlibc = \"0.2\"", pure), 1);
        assert_eq!(impure("", "#![no_std]\n"), 1);
        assert_eq!(impure("", "// #![no_std]\n#![forbid(unsafe_code)]\n"), 1);
    }

    #[test]
    fn lints_that_are_not_inherited() {
        assert!(inherits(&manifest("a", "[lints]\nworkspace = true").1));
        assert!(!inherits(&manifest("a", "[lints.rust]\nunsafe_code = \"allow\"").1));
        assert!(!inherits(&manifest("a", "").1));
    }
}
