//! IA3: a learned factor for every output of a linear, or for every input of a feed-forward linear.
//!
//! Factors of outputs are gains as they are. Factors `l` of the inputs of the last feed-forward linear are gains of the
//! first one wherever that is gated, since `down(act(gate) * up * l)` is `down(act(gate) * (l * up))`: exact as well.
//! As a LoRA the change is `(l - 1) W` by rows or by columns: exact when few factors differ from 1, of full rank
//! otherwise.

use ndarray::Axis;

use super::dequant::Matrix;
use super::error::ImportError;
use super::modules::{Module, Role};
use super::names::Target;
use super::permute;
use super::update::{Change, Context, Gain, Side, Update};

/// Most factors other than 1 for which the change is kept exact, a rank for each.
const MAX_EXACT: usize = 64;

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let target = context.linear(module)?;
    let tensor = module.need(Role::Factors, "ia3_l")?;
    let mut factors = tensor.vector()?;
    // [1, inputs] in feed-forward modules, [outputs, 1] elsewhere.
    let by_input = match tensor.shape[..] {
        [1, inputs] if inputs == target.inputs as u64 => true,
        [outputs, 1] if outputs == target.outputs as u64 => false,
        _ => {
            let reason = format!(
                "has shape {:?}, which fits neither {} outputs nor {} inputs: another base model?",
                tensor.shape, target.outputs, target.inputs
            );
            return Err(ImportError::tensor(&tensor.name, reason));
        }
    };
    let bias = format!("{}.bias", target.tensor.trim_end_matches(".weight"));
    if !by_input && context.has(&bias) && factors.iter().any(|factor| *factor != 1.0) {
        let reason = format!("also scales '{bias}', which a LoRA file cannot carry; merge the adapter instead");
        return Err(ImportError::tensor(&module.name, reason));
    }
    if let (false, Some(head)) = (by_input, target.head) {
        factors = permute::vector(&factors, head);
    }
    let source = tensor.dtype;
    if !context.as_lora {
        let less_one: Vec<f32> = factors.iter().map(|factor| factor - 1.0).collect();
        let (target, gain) = match by_input {
            false => (target, Gain { less_one, side: Side::Outputs }),
            true => up_gain(context, module, &target, less_one)?,
        };
        return Ok(Update { target, source, change: Change::Nothing, gain: Some(gain) });
    }
    let base = context.base_matrix(&target)?;
    let changed: Vec<usize> = (0..factors.len()).filter(|at| factors.get(*at) != Some(&1.0)).collect();
    let axis = if by_input { Axis(1) } else { Axis(0) };
    let change = if changed.len() <= MAX_EXACT {
        sparse(&base, &factors, &changed, axis)
    } else {
        let mut change = base;
        for (mut lane, factor) in change.axis_iter_mut(axis).zip(&factors) {
            lane *= factor - 1.0;
        }
        Change::Whole(change)
    };
    Ok(Update { target, source, change, gain: None })
}

/// Factors of the inputs of `ffn_down`, as gains of what makes those inputs.
fn up_gain(
    context: &Context<'_>,
    module: &Module<'_>,
    down: &Target,
    less_one: Vec<f32>,
) -> Result<(Target, Gain), ImportError> {
    let refuse = |why: &str| {
        let reason = format!(
            "scales the inputs of '{}', {why}; import it with --as-lora, which converts it, or merge the adapter",
            down.tensor
        );
        Err(ImportError::tensor(&module.name, reason))
    };
    let Some(layer) = down.tensor.strip_suffix(".ffn_down.weight") else {
        return refuse("which are no product that a gain could stand in");
    };
    let up = format!("{layer}.ffn_up.weight");
    let Some([inputs, outputs, 1, 1]) = context.base.tensors.get(&up).copied() else {
        return refuse("and the model has no ffn_up beside it");
    };
    if context.has(&format!("{layer}.ffn_up.bias")) {
        return refuse("and ffn_up has a bias, which a gain does not scale");
    }
    let gated = context.has(&format!("{layer}.ffn_gate.weight"));
    let (wide, high) = (less_one.len() as u64, outputs);
    let gain = match (gated, high) {
        (true, high) if high == wide => less_one,
        // Gate and up in one matrix, gate first (Phi-3, GLM-4): the gate's half stays.
        (false, high) if high == wide * 2 => [vec![0.0; less_one.len()], less_one].concat(),
        _ => return refuse("which come out of a function that has no gate in this model"),
    };
    let (Ok(inputs), Ok(outputs)) = (usize::try_from(inputs), usize::try_from(outputs)) else {
        return refuse("and ffn_up is too large");
    };
    let target = Target { tensor: up, inputs, outputs, embedding: false, head: None, expert: None };
    Ok((target, Gain { less_one: gain, side: Side::NextInputs }))
}

/// The exact form: a rank for every factor other than 1.
fn sparse(base: &Matrix, factors: &[f32], changed: &[usize], axis: Axis) -> Change {
    // A change of nothing still needs a pair, of zeros.
    let rank = changed.len().max(1);
    let (mut a, mut b) = (Matrix::zeros((rank, base.ncols())), Matrix::zeros((base.nrows(), rank)));
    for (at, lane) in changed.iter().enumerate() {
        let factor = factors.get(*lane).map_or(0.0, |factor| factor - 1.0);
        let change = base.index_axis(axis, *lane).mapv(|number| number * factor);
        if axis == Axis(0) {
            a.row_mut(at).assign(&change);
            b[[*lane, at]] = 1.0;
        } else {
            b.column_mut(at).assign(&change);
            a[[at, *lane]] = 1.0;
        }
    }
    let alpha = rank as f64;
    Change::Factors { a, b, alpha }
}
