//! Target: directories of models.

use std::fs;
use std::path::Path;

use dacpipe::Kind;
use dacpipe::model::Model;
use dacpipe::store::Location;
use proptest::test_runner::TestCaseError;
use sha2::{Digest, Sha256};

use super::damage::damaged;
use super::{Verdict, fuzz, wait};
use crate::small_run::small_run;

const FILES: [&str; 2] = ["manifest.json", "model.safetensors"];
/// Keywords of a manifest and of the header of arrays.
const WORDS: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\n",
    "\0",
    "-1",
    "0",
    "1e400",
    "null",
    "true",
    "18446744073709551615",
    "4294967296",
    "65536",
    "\"kind\"",
    "scale",
    "kmeans",
    "F64",
    "[0,18446744073709551615]",
    "data_offsets",
    "shape",
    "[]",
];

/// Applies the model in `dir`, if it can be loaded, to rows of the width in its manifest.
fn apply(dir: &Path) -> Result<bool, TestCaseError> {
    match wait(async { Model::load(&Location::parse(&dir.display().to_string())?).await }) {
        Ok(model) => {
            let width = model.dim_in();
            // A wrong width is refused or computed, as memory allows; millions of values would test nothing more.
            if width < 1 << 16 {
                let rows = vec![0.25; 2 * width];
                drop(model.embed(&rows));
                drop(model.assign(&rows));
            }
            Ok(true)
        }
        Err(e) if matches!(e.kind(), Kind::Model | Kind::Compute) => Ok(false),
        Err(e) => Err(TestCaseError::fail(format!("{:?}: {e}", e.kind()))),
    }
}

/// The manifest with a valid hash of its content and `arrays`, as an attacker would write it.
fn signed(manifest: &[u8], arrays: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(manifest).ok()?;
    let (first, rest) = text.split_once('\n')?;
    let content = rest.strip_suffix("\n}\n")?;
    let mut hash = Sha256::new();
    hash.update((content.len() as u64).to_le_bytes());
    hash.update(content);
    hash.update(arrays);
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let at = first.find("\"hash\": \"")? + "\"hash\": \"".len();
    Some(format!("{}{hash}{}\n{rest}", first.get(..at)?, first.get(at + 64..)?))
}

#[test]
fn damaged_models() {
    let run = small_run();
    let models = run.path().join("out/hapt/models");
    let model = fs::read_dir(models).unwrap().next().unwrap().unwrap().path();
    let whole = FILES.map(|name| fs::read(model.join(name)).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let write = |files: [&[u8]; 2]| -> Verdict {
        for (name, bytes) in FILES.iter().zip(files) {
            fs::write(dir.path().join(name), bytes)?;
        }
        Ok(())
    };
    write([&whole[0], &whole[1]]).unwrap();
    assert!(apply(dir.path()).unwrap());
    for file in 0..FILES.len() {
        fuzz(&format!("model, {}", FILES[file]), damaged(whole[file].clone(), WORDS), |bytes| {
            let mut files = [&whole[0][..], &whole[1][..]];
            files[file] = &bytes;
            write(files)?;
            let loads = apply(dir.path())?;
            // The first line of the manifest is not hashed: only changes there may leave the model the same.
            let content = |manifest: &[u8]| manifest.splitn(2, |&b| b == b'\n').nth(1).map(<[u8]>::to_vec);
            let same = content(files[0]) == content(&whole[0]) && files[1] == &whole[1][..];
            proptest::prop_assert!(same || !loads, "a damaged model was loaded");
            let Some(manifest) = signed(files[0], files[1]) else { return Ok(()) };
            write([manifest.as_bytes(), files[1]])?;
            apply(dir.path()).map(drop)
        });
    }
}
