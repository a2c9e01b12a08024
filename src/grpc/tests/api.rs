//! The public API as others read it: everything is explained, and named as buf's STANDARD rules want it
//! (`buf lint` in proto/ says the same and more, where buf is installed).

use std::collections::BTreeMap;

use holdfast_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// What has no explanation, or another name than it should have.
struct Review<'a> {
    comments: BTreeMap<&'a [i32], &'a str>,
    seen: usize,
    faults: Vec<String>,
}

impl Review<'_> {
    fn explained(&mut self, path: &[i32], name: &str) {
        self.seen += 1;
        if self.comments.get(path).is_none_or(|comment| comment.trim().is_empty()) {
            self.faults.push(format!("{name} is not explained"));
        }
    }

    fn named(&mut self, holds: bool, name: &str, rule: &str) {
        if !holds {
            self.faults.push(format!("{name}: {rule}"));
        }
    }
}

fn index(at: usize) -> i32 {
    i32::try_from(at).unwrap()
}

fn lower_snake(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(char::is_alphanumeric)
}

/// `KeyState` as `KEY_STATE`.
fn upper_snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

fn review(file: &FileDescriptorProto) -> (usize, Vec<String>) {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let comments = locations.map(|at| (at.path.as_slice(), at.leading_comments())).collect();
    let mut review = Review { comments, seen: 0, faults: Vec::new() };
    for (m, message) in file.message_type.iter().enumerate() {
        let name = message.name();
        review.explained(&[4, index(m)], name);
        review.named(pascal(name), name, "PascalCase");
        review.named(message.nested_type.is_empty(), name, "messages lie at the top");
        for (f, field) in message.field.iter().enumerate() {
            let full = format!("{name}.{}", field.name());
            review.explained(&[4, index(m), 2, index(f)], &full);
            review.named(lower_snake(field.name()), &full, "lower_snake_case");
        }
        for (o, oneof) in message.oneof_decl.iter().enumerate() {
            let full = format!("{name}.{}", oneof.name());
            review.explained(&[4, index(m), 8, index(o)], &full);
        }
    }
    for (e, enumeration) in file.enum_type.iter().enumerate() {
        let name = enumeration.name();
        review.explained(&[5, index(e)], name);
        let prefix = format!("{}_", upper_snake(name));
        for (v, value) in enumeration.value.iter().enumerate() {
            review.explained(&[5, index(e), 2, index(v)], value.name());
            review.named(value.name().starts_with(&prefix), value.name(), "its enum's prefix");
            let zero = value.number() != 0 || value.name() == format!("{prefix}UNSPECIFIED");
            review.named(zero, value.name(), "zero is unspecified");
        }
    }
    for (s, service) in file.service.iter().enumerate() {
        let name = service.name();
        review.explained(&[6, index(s)], name);
        review.named(pascal(name) && name.ends_with("Service"), name, "ends in Service");
        for (r, rpc) in service.method.iter().enumerate() {
            let full = format!("{name}.{}", rpc.name());
            review.explained(&[6, index(s), 2, index(r)], &full);
            let package = file.package();
            let types = [("Request", rpc.input_type()), ("Response", rpc.output_type())];
            for (suffix, found) in types {
                let wanted = format!(".{package}.{}{suffix}", rpc.name());
                review.named(found == wanted, &full, "takes and gives messages of its own name");
            }
        }
    }
    (review.seen, review.faults)
}

#[test]
fn every_part_of_the_public_api_is_explained_and_named_by_the_standard() {
    let all = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let public: Vec<_> = all.file.iter().filter(|file| file.package() == "holdfast.v1").collect();
    let (mut seen, mut faults) = (0, Vec::new());
    for file in public {
        let (parts, found) = review(file);
        seen += parts;
        faults.extend(found);
    }
    assert!(seen > 250, "the descriptors came without their comments: {seen} parts");
    assert!(faults.is_empty(), "{faults:#?}");
}
