//! A tree filled in with data.

use serde_json::Value;

use super::TemplateError;
use super::ast::{Base, Command, Node, Operand, Pipeline, Range};
use super::functions;

/// The most that a template may make: a mistake in a `range` must not fill the memory.
const OUTPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Fills in.
pub(super) fn render(nodes: &[Node], data: &Value) -> Result<String, TemplateError> {
    let mut scope = Scope {
        root: data,
        variables: Vec::new(),
        out: String::new(),
    };
    scope.nodes(nodes, data)?;
    Ok(scope.out)
}

struct Scope<'a> {
    root: &'a Value,
    variables: Vec<(String, Value)>,
    out: String,
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), TemplateError> {
        let visible = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
            if self.out.len() > OUTPUT_BYTES_MAX {
                return Err(TemplateError::new(0, "the output is too large"));
            }
        }
        self.variables.truncate(visible);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.out.push_str(&functions::text(&value));
            }
            Node::Assign(name, pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(branches, otherwise) => {
                for (test, body) in branches {
                    if functions::truth(&self.pipeline(test, dot)?) {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With(of, body, otherwise) => {
                let value = self.pipeline(of, dot)?;
                if functions::truth(&value) {
                    self.nodes(body, &value)?;
                } else {
                    self.nodes(otherwise, dot)?;
                }
            }
            Node::Range(range) => self.range(range, dot)?,
        }
        Ok(())
    }

    fn range(&mut self, range: &Range, dot: &Value) -> Result<(), TemplateError> {
        let entries: Vec<(Value, Value)> = match self.pipeline(&range.over, dot)? {
            Value::Array(items) => (0..).map(|i: u64| Value::from(i)).zip(items).collect(),
            Value::Object(map) => map.into_iter().map(|(k, v)| (Value::from(k), v)).collect(),
            Value::Null => Vec::new(),
            other => {
                let position = position(&range.over);
                let reason = format!("cannot range over {}", functions::text(&other));
                return Err(TemplateError::new(position, reason));
            }
        };
        if entries.is_empty() {
            return self.nodes(&range.otherwise, dot);
        }
        for (key, value) in entries {
            let visible = self.variables.len();
            if let Some(name) = &range.key {
                self.variables.push((name.clone(), key));
            }
            if let Some(name) = &range.value {
                self.variables.push((name.clone(), value.clone()));
            }
            self.nodes(&range.body, &value)?;
            self.variables.truncate(visible);
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, TemplateError> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, dot, piped)?);
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    fn command(
        &self,
        command: &Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, TemplateError> {
        let Some((first, rest)) = command.operands.split_first() else {
            return Ok(Value::Null);
        };
        let mut arguments = Vec::new();
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(piped);
        if let Base::Function(name) = &first.base {
            let value = functions::call(name, &arguments)
                .map_err(|reason| TemplateError::new(first.position, reason))?;
            return fields(value, &first.fields, first.position);
        }
        if let ([label], Some("Label")) = (&arguments[..], first.fields.last().map(String::as_str))
        {
            return Ok(self.label(label, dot));
        }
        if !arguments.is_empty() {
            return Err(TemplateError::new(
                first.position,
                "this is not a function, so it takes no arguments",
            ));
        }
        self.operand(first, dot)
    }

    /// `.Label "key"`: the one method that Docker's lists have.
    fn label(&self, key: &Value, dot: &Value) -> Value {
        let labels = dot.get(super::listing::LABELS);
        let value = key.as_str().and_then(|key| labels?.get(key));
        value.cloned().unwrap_or_else(|| Value::from(""))
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, TemplateError> {
        let base = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Literal(value) => value.clone(),
            Base::Variable(name) if name.is_empty() => self.root.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let unknown =
                    || TemplateError::new(operand.position, format!("unknown variable ${name}"));
                found.map(|(_, value)| value.clone()).ok_or_else(unknown)?
            }
            Base::Function(name) => functions::call(name, &[])
                .map_err(|reason| TemplateError::new(operand.position, reason))?,
            Base::Parenthesis(pipeline) => self.pipeline(pipeline, dot)?,
        };
        fields(base, &operand.fields, operand.position)
    }
}

fn position(pipeline: &Pipeline) -> usize {
    let first = pipeline
        .commands
        .first()
        .and_then(|command| command.operands.first());
    first.map_or(0, |operand| operand.position)
}

fn fields(mut value: Value, names: &[String], position: usize) -> Result<Value, TemplateError> {
    for name in names {
        value = match &mut value {
            Value::Object(map) => match map.get_mut(name) {
                Some(field) => field.take(),
                None => {
                    let reason = format!("there is no field .{name}");
                    return Err(TemplateError::new(position, reason));
                }
            },
            _ => {
                let reason = format!("there is no field .{name} in what has no fields");
                return Err(TemplateError::new(position, reason));
            }
        };
    }
    Ok(value)
}
