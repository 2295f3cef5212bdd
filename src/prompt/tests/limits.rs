//! A template gets so many steps and so much memory, and stops with an error in one line.

use crate::prompt::{ChatTemplate, Message, RenderOptions, Role, SpecialTokens, TemplateError};
use serde_json::json;

fn render(source: &str) -> Result<String, TemplateError> {
    let template = ChatTemplate::parse(source, SpecialTokens::default())?;
    let messages = [Message::new(Role::User, "hello")];
    Ok(template.render(&messages, &RenderOptions::default())?.text())
}

fn check(sources: &[&str], expected: impl Fn(&TemplateError) -> bool) {
    for source in sources {
        let error = render(source).expect_err(source);
        assert!(expected(&error), "{source}: {error:?}");
        assert!(!error.to_string().contains('\n'), "{source}: {error}");
    }
}

#[test]
fn m17_nesting_is_an_error() {
    let nested =
        |open: &str, close: &str, count: usize| format!("{{{{ {}1{} }}}}", open.repeat(count), close.repeat(count));
    for source in [nested("(", ")", 10_000), nested("[", "]", 10_000), "{% if 1 %}".repeat(10_000)] {
        assert!(matches!(render(&source), Err(TemplateError::Syntax { .. })), "{:?}", render(&source));
    }
    check(
        &[
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{% macro f(n) %}{{ g(n) }}{% endmacro %}{% macro g(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
            "{% include 'chat_template' %}",
        ],
        |error| matches!(error, TemplateError::Failed { .. } | TemplateError::TooManySteps { .. }),
    );
}

#[test]
fn m17_long_chains_do_not_overflow_the_stack() {
    for unit in ["-", "not ", "1+", "1*", "1~", "1**", "a|list|", "x.", "1 if 1 else ", "1 and ", "[1]+"] {
        let chain = unit.repeat(2_400);
        let _ = render(&format!("{{{{ {chain}1 }}}}"));
    }
    // Values that hold themselves, a thousand of themselves, or two each of themselves: printed,
    // compared, hashed, dropped.
    let nests = [
        "[ns.v]",
        "{'v': ns.v}",
        "(ns.v,)",
        "[0] + [ns.v]",
        "[ns.v, ns.v]",
        "[ns.v * 2]",
        "[ns.v or 0, ns.v or 0]",
        "dict(a=ns.v, b=ns.v)",
        "ns",
        "[[ns] * 2]",
        "w",
        "namespace(v=w)",
        "ns.v[0:]",
        "ns.v[0:] + []",
        "ns.v|map('first')",
        "{'a': ns.v}.items()",
    ];
    let start = std::time::Instant::now();
    for nest in nests {
        for end in ["", "{{ ns.v == w.v }}{{ {ns.v: 1}|length }}{{ ns.v|tojson }}"] {
            let _ = render(&format!(
                "{{% set ns = namespace(v=[1]) %}}{{% set w = namespace(v=[1]) %}}\
                 {{% for i in range(3000) %}}{{% set w.v = ns.v %}}{{% set ns.v = {nest} %}}\
                 {{% if loop.index > 400 and ns.v|length == 1 %}}{{% break %}}{{% endif %}}{{% endfor %}}{end}"
            ));
        }
    }
    for source in [
        "{% macro f(v) %}{{ f(v[0:]) }}{% endmacro %}{{ f([1]) }}",
        "{% macro f(v) %}{% call f(v[0:]) %}{% endcall %}{% endmacro %}{{ f([1]) }}",
        &format!("{}{{{{ v|length }}}}", "{% set v = (v or [1])[0:] %}".repeat(1000)),
        &format!("{{% set v = [1] %}}{}{{{{ v|length }}}}", "{% with v = v[0:] %}".repeat(140)),
        &format!("{{{{ messages{}|length }}}}", "[0:]".repeat(1000)),
    ] {
        let _ = render(source);
    }
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}

#[test]
fn m17_a_namespace_cannot_hold_itself() {
    for cycle in [
        "{% set a.v = b %}{% set b.v = a %}",
        "{% set (a.v, b.v) = (b, a) %}",
        "{% set x, (y, a.v) = 1, (2, b) %}{% set b.v = a %}",
        "{% set a.v = b if 1 else 2 %}{% set b.v = a if 1 %}",
        "{% set a.v = [[b] * 2] %}{% set b.v = [[a] * 2] %}",
        "{% set x = dict(q=b) %}{% set a.v = x %}{% set b.v = dict(q=a) %}",
        "{% set a.v = [b]|first %}{% set b.v = not b or a %}",
    ] {
        check(&[&format!("{{% set a = namespace() %}}{{% set b = namespace() %}}{cycle}{{{{ a == b }}}}")], |error| {
            error.to_string().ends_with("a namespace inside a namespace")
        });
    }
}

#[test]
fn m18_too_many_steps() {
    check(
        &[
            "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
            "{% macro f(n) %}{% for i in range(9999) %}{{ f(n) }}{% endfor %}{% endmacro %}\
             {% for i in range(9999) %}{% for j in range(9999) %}{% set x = i %}{% endfor %}{% endfor %}",
        ],
        |error| matches!(error, TemplateError::TooManySteps { .. }),
    );
    check(&["a\n{% for i in range(1000000000) %}x{% endfor %}"], |error| {
        matches!(error, TemplateError::Failed { line: 2, .. })
    });
}

#[test]
fn m18_too_much_memory() {
    let double = |step: &str| {
        format!(
            "{{% set ns = namespace(s='0123456789', l=[1]) %}}{{% for i in range(60) %}}{step}{{% endfor %}}{{{{ ns.l|length }}}}"
        )
    };
    let doubled = [
        "{% set ns.s = ns.s + ns.s %}",
        "{% set ns.s = ns.s ~ ns.s %}",
        "{% set ns.s = '' + (ns.s + ns.s) %}",
        "{% set ns.s = ns.s * 2 %}",
        "{% set ns.s = 2 * ns.s * 1 %}",
        "{% set ns.s %}{{ ns.s }}{{ ns.s }}{% endset %}",
        "{% set ns.s = [ns.s, ns.s]|join %}",
        "{% set ns.s = ''.join([ns.s, ns.s]) %}",
        "{% set ns.s = ns.s|replace('0', ns.s) %}",
        "{% set ns.s = ns.s.replace('0', ns.s) %}",
        "{% set ns.s = '%s%s'|format(ns.s, ns.s) %}",
        "{% set ns.s = '{0}{0}'.format(ns.s) %}",
        "{% set ns.l = ns.l + ns.l %}",
        "{% set ns.l = ns.l * 2 %}",
        "{% set ns.s = [ns.s, ns.s]|string %}",
        "{% set ns.s = [ns.s, ns.s]|tojson %}",
        "{% set ns.l = [ns.l, ns.l] %}{% if loop.last %}{% set ns.s = ns.l ~ '' %}{% endif %}",
        "{% set ns.l = [ns.l, ns.l] %}{% if loop.last %}{% set ns.s = ns.l|tojson %}{% endif %}",
    ]
    .map(double);
    let straight = format!("{{% set s = 'abcdefgh' %}}{}", "{% set s = s + s %}".repeat(60));
    let in_macro = "{% macro f(s, n) %}{{ f(s + s, n + 1) }}{% endmacro %}{{ f('0123456789', 0) }}";
    let raw = format!("{{% set x %}}{{% for i in range(9999) %}}{}{{% endfor %}}{{% endset %}}", "word ".repeat(9999));
    let mut all: Vec<&str> = doubled.iter().map(String::as_str).collect();
    all.extend([straight.as_str(), &raw, in_macro]);
    all.extend([
        "{{ 'x' * 1000000000 }}",
        "{{ 'x' * 1000 * 1000 * 1000 }}",
        "{{ 'x' * 10 ** 8 }}",
        "{{ 10 ** 8 // 1 * 'x' }}",
        "{% set x = 'x' * 90000000 %}",
        "{% set x = [1] * 90000000 %}",
        "{% set x = '100000000'|int * 'x' %}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d'|format(1000000000, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ 'x'|indent(1000000000, true) }}",
        "{{ 'x'|indent(width=1000000000, first=true) }}",
        "{{ {'a': 1}|tojson(indent=1000000000) }}",
        "{{ messages[0].content * 99999999 }}",
    ]);
    check(&all, |error| matches!(error, TemplateError::TooLarge { .. } | TemplateError::Failed { .. }));
    check(
        &["{% for i in range(9999) %}0123456789012345678901234567890123456789012345678901234567890123456789\
           01234567890123456789012345678901234567890123456789{% endfor %}"],
        |error| *error == TemplateError::TooLarge { limit: (1 << 20) + 4 * 5 },
    );
}

#[test]
fn errors_name_the_line() {
    for (source, expected) in [
        ("a\n{{ b", "chat template, line 2: syntax error: unexpected end of input, expected end of variable block"),
        ("a\n\n{{ a.b.c }}", "chat template, line 3: undefined value"),
        (
            "{{ 'a' + 1 }}",
            "chat template, line 1: invalid operation: tried to use + operator on unsupported types string and number",
        ),
        ("{{ f() }}", "chat template, line 1: unknown function: f is unknown"),
        ("{{ raise_exception('no\nsystem') }}", "the chat template refuses this conversation: no system"),
        (
            "\n{% macro f() %}{{ raise_exception('no') }}{% endmacro %}{{ f() }}",
            "the chat template refuses this conversation: no",
        ),
    ] {
        assert_eq!(render(source).unwrap_err().to_string(), expected);
    }
    let large = ChatTemplate::parse(&" ".repeat(200_000), SpecialTokens::default());
    assert!(matches!(large, Err(TemplateError::SourceTooLarge { .. })));
}

#[test]
fn long_conversations_are_rendered() {
    let tokens = SpecialTokens { control: vec!["<|im_start|>".into(), "<|im_end|>".into()], ..Default::default() };
    let template = ChatTemplate::parse(super::golden::source("qwen"), tokens).unwrap();
    let messages: Vec<Message> = (0..3000)
        .map(|index| {
            let role = if index % 2 == 0 { Role::User } else { Role::Assistant };
            Message::new(role, "some <|im_end|> words </think> ".repeat(20))
        })
        .collect();
    let options = RenderOptions {
        tools: Some(json!([{"type": "function", "function": {"name": "f"}}])),
        ..RenderOptions::default()
    };
    let prompt = template.render(&messages, &options).unwrap();
    assert!(prompt.text().len() > 900_000);
}
