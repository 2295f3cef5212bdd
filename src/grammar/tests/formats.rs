//! The ready formats: what each accepts and what it does not.

use super::super::{GrammarError, Source, format, format_names};
use super::{check, compile, refusal};

fn table(name: &str, accepts: &[&str], rejects: &[&str]) {
    let compiled = compile(Source::Named(name.to_owned())).unwrap_or_else(|error| panic!("{error}"));
    check(&compiled, accepts, rejects);
}

#[test]
fn every_format_compiles_and_has_a_description() {
    for name in format_names() {
        let format = format(name).unwrap();
        assert_eq!(format.name, *name);
        assert!(format.gbnf.starts_with("# "), "{name}");
        assert!(format.description().len() > 10, "{name}");
        assert!(compile(Source::Named((*name).to_owned())).is_ok(), "{name}");
    }
    assert!(format_names().is_sorted());
    assert!(format("nothing").is_none());
}

#[test]
fn an_unknown_format_names_the_nearest() {
    let error = compile(Source::Named("jsn".to_owned())).unwrap_err();
    assert_eq!(error, GrammarError::UnknownFormat { name: "jsn".to_owned(), nearest: Some("json".to_owned()) });
    assert_eq!(refusal(Source::Named("jsn".to_owned())), "there is no format 'jsn' (did you mean 'json'?)");
    assert_eq!(refusal(Source::Named("haiku".to_owned())), "there is no format 'haiku'");
}

const JSON_STRINGS: (&[&str], &[&str]) = (
    &[r#""""#, r#""a b""#, r#""\"\\\/\b\f\n\r\t""#, r#""\u00e9""#, r#""\ud83d\ude00""#, "\"日本 😀\""],
    &["\"", "\"a\nb\"", "\"a\tb\"", r#""\x""#, r#""\u00g0""#, r#""\ud83d""#, r#""\ude00""#, "'a'"],
);

#[test]
fn json() {
    table("json", JSON_STRINGS.0, JSON_STRINGS.1);
    table(
        "json",
        &[
            "null",
            "true",
            "false",
            "0",
            "-1.5",
            "1e10",
            "2.5E-3",
            "{}",
            "[]",
            "[1, 2, [3]]",
            r#"{"a":1,"b":[]}"#,
            r#"{"a": {"b": null}, "c": "d"}"#,
            "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}",
        ],
        &[
            "",
            "nul",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "NaN",
            "{",
            "[1,]",
            "{\"a\"}",
            "{a: 1}",
            "{\"a\": 1,}",
            "[1 2]",
            "[1,    2]",
            "1 ",
            "{} {}",
            "1e400",
        ],
    );
}

#[test]
fn what_json_accepts_a_json_parser_reads() {
    for text in JSON_STRINGS.0 {
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }
}

#[test]
fn json_object() {
    table(
        "json-object",
        &["{}", r#"{"a":1}"#, r#"{"a": [1, 2], "b": {"c": "d"}}"#, "{\n \"a\": true\n}", r#"{"": null}"#],
        &["[]", "1", "\"a\"", "{\"a\": 1", r#"{"a": 1} "#, "{1: 2}"],
    );
}

#[test]
fn json_array() {
    table(
        "json-array",
        &["[]", "[1]", "[1, 2, 3]", r#"["a", {"b": null}]"#, "[\n  1,\n  2\n]", "[[], [[]]]"],
        &["{}", "1", "[1,]", "[1", "[,1]", "[1][2]"],
    );
}

#[test]
fn ndjson_record() {
    table(
        "ndjson-record",
        &["{}", r#"{"a":1}"#, r#"{"a": "b", "c": [1, 2]}"#, r#"{"a": "line\nbreak"}"#, r#"{"a": {"b": {}}}"#],
        &["{\n}", "[1]", "{\"a\": 1}\n", "{\"a\":\n1}", "{}{}", "null"],
    );
}

#[test]
fn yes_no() {
    table("yes-no", &["yes", "no"], &["", "Yes", "YES", "maybe", "yes.", "noo", "y"]);
}

#[test]
fn sentiment() {
    table(
        "sentiment",
        &["positive", "negative", "neutral"],
        &["", "Positive", "good", "neutral.", "positive negative", "neu"],
    );
}

#[test]
fn integer() {
    table(
        "integer",
        &["0", "7", "-7", "42", "-999999999999999999", "100"],
        &["", "-", "007", "-0", "1.0", "1e3", "+1", "1,000", "1234567890123456789"],
    );
}

#[test]
fn number() {
    table(
        "number",
        &["0", "-1", "3.14", "6.02e23", "1E-9", "-0.5", "10"],
        &["", ".5", "5.", "01", "1e", "--1", "1e400", "Infinity", "1 "],
    );
}

#[test]
fn iso_date() {
    table(
        "iso-date",
        &[
            "2024-02-29",
            "2000-02-29",
            "1999-12-31",
            "2023-02-28",
            "2023-04-30",
            "2023-07-31",
            "2023-08-31",
            "0000-02-29",
            "1996-02-29",
            "2400-02-29",
            "2023-10-10",
        ],
        &[
            "2023-02-29",
            "1900-02-29",
            "2100-02-29",
            "2023-04-31",
            "2023-13-01",
            "2023-00-10",
            "2023-01-00",
            "2023-01-32",
            "2023-1-1",
            "23-01-01",
            "2024-02-30",
            "2024-02-29T",
            "2023-06-31",
            "2023-09-31",
            "2023-11-31",
            "2022-02-29",
        ],
    );
}

#[test]
fn leap_years_are_those_of_the_calendar() {
    let compiled = compile(Source::Named("iso-date".to_owned())).unwrap();
    for year in 0..=9999 {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let result = compiled.matches(format!("{year:04}-02-29").as_bytes()).unwrap();
        assert_eq!(result == super::super::MatchResult::Complete, leap, "{year}");
    }
}

#[test]
fn email() {
    table(
        "email",
        &[
            "ada@example.org",
            "a@b.co",
            "first.last@mail.example.com",
            "x+tag@sub.domain.example",
            "o'brien@example.ie",
            "a.b.c.d@e.f.g.h.i.com",
            "user_name-1@my-host.museum",
        ],
        &[
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@example",
            ".ada@example.org",
            "ada.@example.org",
            "a..b@example.org",
            "ada@-x.org",
            "ada@x-.org",
            "ada@exam ple.org",
            "ada@example.o",
            "a@b@c.org",
            "ada@example.org ",
        ],
    );
    let long = format!("{}@example.org", "a".repeat(65));
    table("email", &[&long[1..]], &[&long]);
}

#[test]
fn csv_row() {
    table(
        "csv-row",
        &[
            "a",
            "a,b,c",
            "a,,c",
            ",",
            ",,",
            "\"a,b\",c",
            "\"say \"\"hi\"\"\"",
            "\"two\r\nlines\",x",
            "é,日本",
            "1,2.5,-3",
            " a , b ",
            "\"\"",
        ],
        &["", "a\"b", "\"a", "\"a\"b", "a\nb", "a,b\r\n", "\"a\" ,b", "a\tb"],
    );
}

#[test]
fn markdown_list() {
    table(
        "markdown-list",
        &[
            "- one",
            "- one\n- two",
            "- one\n  - nested\n- two",
            "- **bold** and `code`",
            "- a\n  - b\n    - c\n- d",
            "- é",
        ],
        &[
            "",
            "one",
            "-one",
            "- ",
            "* one",
            "- one\n",
            "- one\n\n- two",
            "  - one",
            "- one\n - two",
            "- one\ntwo",
            "-  x",
        ],
    );
}

#[test]
fn sql_select() {
    table(
        "sql-select",
        &[
            "SELECT * FROM users",
            "select id, name from users where age > 30 order by name desc limit 10;",
            "SELECT u.id, COUNT(*) AS n FROM users u LEFT JOIN orders o ON u.id = o.user_id GROUP BY u.id HAVING COUNT(*) > 3",
            "SELECT DISTINCT city FROM t WHERE name LIKE 'A%' AND (age BETWEEN 1 AND 9 OR city IN ('Bern', 'Basel'))",
            "SELECT a FROM b WHERE c IS NOT NULL UNION ALL SELECT d FROM e",
            "SELECT (SELECT MAX(x) FROM t) AS m FROM (SELECT 1 AS one FROM dual) AS s",
            "SELECT CASE WHEN a = 1 THEN 'x' ELSE 'y' END AS label FROM t LIMIT 5 OFFSET 10",
            "SELECT \"Group\", 'it''s' FROM \"my table\"",
            "SELECT name\nFROM users\nWHERE NOT EXISTS (SELECT 1 FROM bans b WHERE b.id = users.id)",
            "SELECT price * 1.2 + 3 FROM items AS i CROSS JOIN taxes",
        ],
        &[
            "",
            "SELECT",
            "SELECT * FROM",
            "SELECT FROM users",
            "SELECT * FROM users WHERE",
            "SELECT a, FROM t",
            "DELETE FROM users",
            "DROP TABLE users",
            "SELECT * FROM users; DROP TABLE users",
            "SELECT * FROM users WHERE name = 'x",
            "SELECT * FROM t ORDER name",
            "SELECT * FROM t LIMIT many",
            "SELECT count(* FROM t",
            "INSERT INTO t VALUES (1)",
        ],
    );
}

#[test]
fn cypher_query() {
    table(
        "cypher-query",
        &[
            "MATCH (n) RETURN n",
            "MATCH (p:Person) RETURN p.name LIMIT 5",
            "MATCH (p:Person {name: 'Ada'})-[:KNOWS]->(f:Person) WHERE f.age > 30 RETURN f.name AS name ORDER BY f.name DESC",
            "MATCH (a)-[r:LIKES|LOVES*1..3]-(b) RETURN DISTINCT a, count(r) AS c SKIP 1 LIMIT 2",
            "MATCH (a)<-[:OWNS]-(b)\nOPTIONAL MATCH (b)-->(c)\nRETURN a, b, c;",
            "MATCH p = (a)-[*]->(b) WITH a, count(b) AS n WHERE n > 2 RETURN a",
            "MATCH (n) WHERE n.name STARTS WITH 'A' AND NOT n.old RETURN n.tags[0]",
            "MATCH (n:A:B) WHERE n.x IN [1, 2] OR n.y IS NOT NULL RETURN *",
        ],
        &[
            "",
            "MATCH (n)",
            "RETURN 1",
            "MATCH n RETURN n",
            "MATCH (n RETURN n",
            "MATCH (n) RETURN",
            "MATCH (n) DELETE n",
            "CREATE (n) RETURN n",
            "MATCH (a)-[b](c) RETURN a",
            "MATCH (n) WHERE RETURN n",
            "MATCH (n) RETURN n LIMIT x",
            "MATCH (n {name: }) RETURN n",
        ],
    );
}

#[test]
fn typescript_function() {
    table(
        "typescript-function",
        &[
            "function f() {\n}",
            "function add(a: number, b: number): number {\n  return a + b;\n}",
            "export async function load(url: string): Promise<string[]> {\n  const r = await fetch(url);\n  return await r.json();\n}",
            "function id<T extends object>(x: T): T {\n  return x;\n}",
            "function f(xs: number[]): number {\n  let sum = 0;\n  for (const x of xs) {\n    if (x > 0 && x < 10) {\n      sum += x;\n    } else {\n      continue;\n    }\n  }\n  return sum;\n}",
            "function g(o?: { a: string; b: number }): string | null {\n  return o ? `v: ${o.a}` : null;\n}",
            "function h(): (x: number) => number {\n  return (x) => x * 2;\n}",
            "function k(...xs: string[]) {\n  xs.map(x => x.trim()).forEach((x) => {\n    console.log(x, \"done\\n\");\n  });\n}",
            "function m(): Map<string, number> {\n  const o = { a: 1, \"b\": [1, 2], ...rest };\n  return new Map<string, number>();\n}",
            "function w() {\n  for (let i = 0; i < 3; i++) {\n    throw new Error('no');\n  }\n}",
        ],
        &[
            "",
            "function",
            "function () {\n}",
            "function f( {\n}",
            "function f() {",
            "function f() { return 1",
            "function f(a) {\n}",
            "function f() {\n  return 1\n}",
            "const f = 1;",
            "class A {\n}",
            "function f(): {\n}",
            "function f() {\n  if x {\n  }\n}",
            "function f() {\n} x",
        ],
    );
}

#[test]
fn tool_call() {
    table(
        "tool-call",
        &[
            r#"{"name": "get_weather", "arguments": {"city": "Bern"}}"#,
            r#"{"name":"f","arguments":{}}"#,
            r#"{"name": "math.add", "arguments": {"a": 1, "b": [2, 3]}}"#,
            "{\n  \"name\": \"x\",\n  \"arguments\": {\n    \"y\": null\n  }\n}",
            r#"{"name": "a-b_c", "arguments": {"nested": {"deep": true}}}"#,
        ],
        &[
            "",
            "{}",
            r#"{"name": "f"}"#,
            r#"{"arguments": {}, "name": "f"}"#,
            r#"{"name": "", "arguments": {}}"#,
            r#"{"name": "f", "arguments": []}"#,
            r#"{"name": "f", "arguments": "{}"}"#,
            r#"{"name": "two words", "arguments": {}}"#,
            r#"{"name": "f", "arguments": {}, "id": 1}"#,
            r#"get_weather({"city": "Bern"})"#,
        ],
    );
}
