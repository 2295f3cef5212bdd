//! Formats with parameters: how they are spelled, what they accept, and that no parameter can break out of its literal.

use proptest::prelude::*;
use serde_json::json;

use super::super::{Source, format_text, parameterised};
use super::{check, compile, refusal};

fn table(spelling: &str, accepts: &[&str], rejects: &[&str]) {
    let compiled = compile(Source::Named(spelling.to_owned())).unwrap_or_else(|error| panic!("{error}"));
    check(&compiled, accepts, rejects);
}

#[test]
fn every_example_works_and_is_named_after_its_format() {
    for shape in parameterised() {
        assert!(shape.example.starts_with(&format!("{}(", shape.name)), "{}", shape.name);
        assert!(compile(Source::Named(shape.example.to_owned())).is_ok(), "{}", shape.example);
        assert!(format_text(shape.example).unwrap().contains("root ::="));
    }
    assert!(parameterised().is_sorted_by_key(|shape| shape.name));
}

#[test]
fn choices() {
    let accepts = ["positive", "negative", "can't tell"];
    let rejects = ["", "neutral", "positive ", "\"positive\""];
    table("choice(positive, negative, \"can't tell\")", &accepts, &rejects);
    table("choice( positive,negative ,can't tell )", &accepts, &rejects);
    table("choice(labels=[positive, negative, can't tell])", &accepts, &rejects);
    let spelling = json!({"name": "choice", "params": {"labels": accepts}}).to_string();
    table(&spelling, &accepts, &rejects);
    table("choice(\"a\\\"b\", \"c\\\\d\", \"x, y\")", &["a\"b", "c\\d", "x, y"], &["a", "x"]);
    table("labels(a, b, c)", &["a", "a, b", "a, c", "a, b, c", "b, c", "c"], &["", "b, a", "a, a", "a,b", "a, "]);
    table("labels(a, b, separator=\" | \")", &["a", "a | b"], &["a, b"]);
}

#[test]
fn lines_and_tables() {
    table(
        "fields(Title, Year)",
        &["Title: Dune\nYear: 1965"],
        &["Title: Dune", "Year: 1965\nTitle: Dune", "Title: \nYear: 1"],
    );
    table(
        "csv(name, born:date, height:number, rows=2)",
        &[
            "name,born,height\nAda,1815-12-10,1.65",
            "name,born,height\n\"Ada, Countess\",1815-12-10,1.65\n,1912-06-23,-2",
        ],
        &[
            "Ada,1815-12-10,1.65",
            "name,born,height",
            "name,born,height\nAda,1815-13-10,1",
            "name,born,height\na\"b,1815-12-10,1",
        ],
    );
    table("csv(\"a,b\", n:integer, header=false)", &["x,1", "\"say \"\"hi\"\"\",-20\ny,0"], &["a,b,n\nx,1", "x,01"]);
    table(
        "markdown-table(Name, Age, rows=1)",
        &["| Name | Age |\n| --- | --- |\n| Ada | 36 |", "| Name | Age |\n| --- | --- |\n| a \\| b | 1 |"],
        &["| Name | Age |\n| --- | --- |", "| Name | Age |\n| --- | --- |\n| Ada |"],
    );
}

#[test]
fn sql_knows_only_the_names_it_was_given() {
    let accepts = [
        "SELECT id FROM users",
        "SELECT u.name, COUNT(*) AS n FROM users u JOIN orders o ON o.user_id = u.id WHERE total > 5 GROUP BY u.name",
        "SELECT users.* FROM users WHERE name LIKE 'A%' ORDER BY id DESC LIMIT 3;",
        "SELECT \"unit price\" FROM orders",
    ];
    let rejects = [
        "SELECT password FROM users",
        "SELECT id FROM secrets",
        "SELECT users.password FROM users",
        "DROP TABLE users",
    ];
    table("sql(users.id, users.name, orders.user_id, orders.total, \"orders.unit price\")", &accepts, &rejects);
    let object = json!({"name": "sql", "params": {"tables": {"users": ["id", "name"], "orders": ["user_id", "total", "unit price"]}}});
    table(&object.to_string(), &accepts, &rejects);
}

#[test]
fn mistakes_are_named() {
    for (spelling, message) in [
        ("choice()", "format 'choice': 'labels' is missing; example: choice("),
        ("choice(a, a)", "'labels' has 'a' twice"),
        ("choice(a, lables=b)", "there is no parameter 'lables' (did you mean 'labels'?)"),
        ("choice(a, labels=[b])", "parameter 'labels' is given twice"),
        ("choice(a", "expected ',' or ')'"),
        ("choice(a) b", "unexpected 'b' after ')'"),
        ("choice(\"a)", "a quoted value has no end"),
        ("choice(a,)", "a value is missing"),
        ("choice(a(b))", "write the value in double quotes"),
        ("choice([[a]])", "lists hold no lists"),
        ("choise(a)", "there is no format 'choise' (did you mean 'choice'?)"),
        ("json(a)", "format 'json': takes no parameters"),
        ("csv(a:float)", "a type is text, integer, number or date"),
        ("csv(a, rows=0)", "'rows' must be a number from 1 to 10000"),
        ("csv(a, header=maybe)", "'header' must be true or false"),
        ("sql(users)", "'users' is not table.column"),
        ("{\"name\": 1}", "'name' must be the name of a format"),
        ("{\"name\": \"choice\", \"parms\": {}}", "'parms' is neither 'name' nor 'params'"),
        ("{\"name\": \"choice\", \"params\": {\"labels\": [1]}}", "'labels' must be a list of texts"),
        ("{", "format: EOF while parsing"),
    ] {
        let refused = refusal(Source::Named(spelling.to_owned()));
        assert!(refused.contains(message), "{spelling}: {refused}");
        assert!(!refused.contains('\n'));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn labels_of_any_characters_accept_themselves_and_nothing_else(
        labels in prop::collection::btree_set("[^\\p{Cc}]{1,12}", 1..5),
        other in "[^\\p{Cc}]{0,12}",
    ) {
        let spelling = json!({"name": "choice", "params": {"labels": labels}}).to_string();
        let compiled = compile(Source::Named(spelling)).unwrap();
        for label in &labels {
            check(&compiled, &[label], &[]);
        }
        if !labels.contains(&other) {
            check(&compiled, &[], &[&other]);
        }
        let columns = json!({"name": "markdown-table", "params": {"columns": labels}}).to_string();
        prop_assert!(compile(Source::Named(columns)).is_ok());
        let names = json!({"name": "fields", "params": {"names": labels}}).to_string();
        prop_assert!(compile(Source::Named(names)).is_ok());
    }

    #[test]
    fn no_spelling_makes_anything_panic(text in "[a-c(){}\\[\\]\",=\\\\ :é]{0,24}") {
        let _ = format_text(&text);
        let _ = format_text(&format!("choice({text}"));
        let _ = format_text(&format!("sql({text}"));
        let _ = format_text(&format!("csv({text}"));
    }
}
