//! DoRA: `m * (W + s B A) / |W + s B A|`, with the norm of every row and a learned length `m` for it.
//!
//! The change is `g s B A + (g - 1) W` with `g = m / |W + s B A|`, of full rank as soon as a row changes its length;
//! what is left of the second part at a low rank is what the conversion costs.

use ndarray::linalg::general_mat_mul;
use ndarray::{Axis, Zip};

use super::error::ImportError;
use super::lora::{self, Pair};
use super::modules::{Module, Role};
use super::permute;
use super::update::{Change, Context, Update};

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let Pair { target, source, a, b, alpha } = lora::pair(context, module)?;
    let Some(magnitude) = module.get(Role::Magnitude) else {
        let reason = "has no lora_magnitude_vector, though use_dora is set; the file is incomplete";
        return Err(ImportError::tensor(&module.name, reason));
    };
    if target.embedding {
        return Err(ImportError::tensor(
            &module.name,
            "is DoRA on an embedding, which is not imported; train without it",
        ));
    }
    let mut lengths = magnitude.vector()?;
    if lengths.len() != target.outputs {
        let reason = format!("has {} lengths for {} rows", lengths.len(), target.outputs);
        return Err(ImportError::tensor(&magnitude.name, reason));
    }
    if let Some(head) = target.head {
        lengths = permute::vector(&lengths, head);
    }
    let base = context.base_matrix(&target)?;
    let strength = (alpha / a.nrows() as f64) as f32;
    let mut changed = base.clone();
    general_mat_mul(strength, &b, &a, 1.0, &mut changed);
    for ((mut row, base), length) in changed.axis_iter_mut(Axis(0)).zip(base.axis_iter(Axis(0))).zip(&lengths) {
        let norm = row.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
        // A row of zeros has no direction to stretch.
        let stretch = if norm > 0.0 { (f64::from(*length) / norm) as f32 } else { 1.0 };
        Zip::from(&mut row).and(&base).for_each(|changed, base| *changed = *changed * stretch - base);
    }
    let change = Change::Whole(changed);
    Ok(Update { target, source, change })
}
