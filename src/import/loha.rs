//! LoHa: the element-wise product of two low ranks, `(alpha / r) (P1 Q1) * (P2 Q2)`.
//!
//! Exact: entry `[o, i]` is a sum over pairs of ranks of `P1[o,j] P2[o,k] Q1[j,i] Q2[k,i]`, a product of two factors
//! of rank `r1 r2`.

use super::dequant::Matrix;
use super::error::ImportError;
use super::modules::{Module, Role};
use super::update::{Change, Context, Update, check_rank, check_sizes, rows};

/// What a module adds.
pub(super) fn update(context: &Context<'_>, module: &Module<'_>) -> Result<Update, ImportError> {
    let target = context.linear(module)?;
    let source = module.need(Role::W1A, "hada_w1_a")?.dtype;
    let p1 = module.need(Role::W1A, "hada_w1_a")?.matrix()?;
    let q1 = module.need(Role::W1B, "hada_w1_b")?.matrix()?;
    let p2 = module.need(Role::W2A, "hada_w2_a")?.matrix()?;
    let q2 = module.need(Role::W2B, "hada_w2_b")?.matrix()?;
    let (rank1, rank2) = (p1.ncols(), p2.ncols());
    for (p, q) in [(&p1, &q1), (&p2, &q2)] {
        check_sizes(module, &target, q, p)?;
    }
    check_rank(context.config, module, rank1)?;
    // Thin as long as the ranks are: their product is cut later where it is too large for a file.
    let rank = rank1.saturating_mul(rank2);
    let strength = context.config.alpha(&module.name) / rank1 as f64;
    let change = if rank <= target.outputs.min(target.inputs) {
        let b = Matrix::from_shape_fn((target.outputs, rank), |(o, jk)| p1[[o, jk / rank2]] * p2[[o, jk % rank2]]);
        let a = Matrix::from_shape_fn((rank, target.inputs), |(jk, i)| q1[[jk / rank2, i]] * q2[[jk % rank2, i]]);
        Change::Factors { a, b: rows(b, &target), alpha: strength * rank as f64 }
    } else {
        target.check_whole()?;
        let product = p1.dot(&q1) * p2.dot(&q2) * strength as f32;
        Change::Whole(rows(product, &target))
    };
    Ok(Update { target, source, change, gain: None })
}
