//! DoRA: `m * (W + s B A) / |W + s B A|`, with the norm of every row and a learned length `m` for it.
//!
//! With `g = m / |W + s B A|` that is `W x + (g - 1) * W x + s (g * B) A x`: a gain for every output and a pair whose B
//! has its rows multiplied by it. Exact at the scale the adapter was trained for; the norms are those of the base model
//! as it is given, so a quantized base has its own. As a LoRA the change is `g s B A + (g - 1) W`, of full rank as soon
//! as a row changes its length; what is left of the second part at a low rank is what that conversion costs.

use ndarray::linalg::general_mat_mul;
use ndarray::{Axis, Zip};

use super::error::ImportError;
use super::lora::{self, Pair};
use super::modules::{Module, Role};
use super::permute;
use super::update::{Change, Context, Gain, Side, Update};

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let Pair { target, source, a, b, alpha } = lora::pair(context, module)?;
    context.refuse_expert(module, &target)?;
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
    let norm = |row: ndarray::ArrayView1<'_, f32>| row.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>().sqrt();
    let stretch = |(row, length): (_, &f32)| match norm(row) {
        // A row of zeros has no direction to stretch.
        0.0 => 1.0,
        norm => f64::from(*length) / norm,
    };
    let stretches: Vec<f64> = changed.axis_iter(Axis(0)).zip(&lengths).map(stretch).collect();
    if context.as_lora {
        for ((mut row, base), stretch) in changed.axis_iter_mut(Axis(0)).zip(base.axis_iter(Axis(0))).zip(&stretches) {
            let stretch = *stretch as f32;
            Zip::from(&mut row).and(&base).for_each(|changed, base| *changed = *changed * stretch - base);
        }
        return Ok(Update { target, source, change: Change::Whole(changed), gain: None });
    }
    let mut stretched = b;
    for (mut row, stretch) in stretched.axis_iter_mut(Axis(0)).zip(&stretches) {
        row *= *stretch as f32;
    }
    let gain = Gain { less_one: stretches.iter().map(|stretch| (stretch - 1.0) as f32).collect(), side: Side::Outputs };
    Ok(Update { target, source, change: Change::Factors { a, b: stretched, alpha }, gain: Some(gain) })
}
