//! Learned arrays as a safetensors file.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use crate::error::{Error, Result};
use crate::stage::Tensor;

/// Encodes learned arrays as a safetensors file, both for models and for the state of interrupted runs: the arrays by
/// name, and at most one named text beside them. (The order of several texts would be random.)
///
/// # Errors
/// Kind `Internal` for an array whose number of values differs from its shape.
pub(crate) fn encode_arrays<T: Borrow<Tensor>>(
    tensors: &BTreeMap<String, T>,
    metadata: Option<(&str, &str)>,
) -> Result<Vec<u8>> {
    let bytes = |tensor: &T| tensor.borrow().values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let bytes: Vec<Vec<u8>> = tensors.values().map(bytes).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for ((name, tensor), bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.borrow().shape.clone(), bytes).map_err(|e| {
            Error::internal(format!("array {name} has more or fewer values than its shape says")).with_source(e)
        })?;
        views.push((name, view));
    }
    let metadata = metadata.map(|(name, text)| HashMap::from([(name.to_owned(), text.to_owned())]));
    serialize(views, metadata).map_err(|e| Error::internal("arrays that cannot be encoded").with_source(e))
}

/// The arrays and the texts that [`encode_arrays`] was given.
///
/// # Errors
/// Kind `Model` if it is not a safetensors file or has an array of another type than `f32`.
pub(crate) fn decode_arrays(bytes: &[u8]) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let damaged = |e| Error::model("not a safetensors file").with_source(e);
    let file = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(Error::model(format!("array {name} is {:?}, expected F32", view.dtype())));
        }
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn arrays_come_back_to_the_bit() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor { shape: shape.to_vec(), values: values.to_vec() };
        let tensors = BTreeMap::from([
            ("0.b".to_string(), tensor(&[2, 1], &[-0.0, f32::MIN_POSITIVE / 4.0])),
            ("0.a".to_string(), tensor(&[], &[f32::INFINITY])),
            ("none".to_string(), tensor(&[0, 7], &[])),
        ]);
        let bytes = encode_arrays(&tensors, None).unwrap();
        assert_eq!(decode_arrays(&bytes).unwrap(), (tensors.clone(), HashMap::new()));
        assert_eq!(encode_arrays(&tensors, None).unwrap(), bytes);
        let borrowed: BTreeMap<String, &Tensor> = tensors.iter().map(|(name, t)| (name.clone(), t)).collect();
        let (again, texts) =
            decode_arrays(&encode_arrays(&borrowed, Some(("settings", "{\"k\": 3}"))).unwrap()).unwrap();
        assert_eq!((again, texts["settings"].as_str()), (tensors, "{\"k\": 3}"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let short = BTreeMap::from([("w".to_string(), Tensor { shape: vec![3], values: vec![1.0] })]);
        let e = encode_arrays(&short, None).unwrap_err();
        assert!(e.kind() == Kind::Internal && e.to_string().starts_with("array w has more or fewer values"), "{e}");
        let halves = serialize([("w", TensorView::new(Dtype::F16, vec![2], &[0; 4]).unwrap())], None).unwrap();
        assert_eq!(decode_arrays(&halves).unwrap_err().message(), "array w is F16, expected F32");
        for bytes in [&b"rubbish"[..], &[], &halves[..halves.len() - 1]] {
            let e = decode_arrays(bytes).unwrap_err();
            assert!(e.kind() == Kind::Model && e.message() == "not a safetensors file", "{e}");
        }
    }
}
