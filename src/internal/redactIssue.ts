/**
 * Removes values from the issues of Schemas: an issue is written to errors, logs and dead letters, and what does not decode
 * or encode may be a secret.
 *
 * What is left is the path and what the schema expects there: its type, and the `expected`, `message` and `identifier` that
 * stand in the schema, or the `expected` of an issue that its code makes. Any other text that a check or a transformation makes
 * when it runs may quote the value, and is replaced by "Expected a valid value". A key of a record is a value too, and is
 * replaced by `<key>`.
 */
import { Schema, SchemaAST, SchemaIssue } from "effect"

type Path = ReadonlyArray<PropertyKey>

interface Entry {
  readonly path: Path
  readonly message: string
}

const INVALID = "Expected a valid value"

/** Returns the text that stands in the annotations of a check or an issue. */
const expectedBy = (annotations: { readonly [key: string]: unknown } | undefined): string | undefined =>
  typeof annotations?.["expected"] === "string" ? `Expected ${annotations["expected"]}` : undefined

const writtenIn = (annotations: { readonly [key: string]: unknown } | undefined): string | undefined =>
  typeof annotations?.["message"] === "string" ? annotations["message"] : expectedBy(annotations)

/** Returns the leaves of an issue; `given` is the text of a check around it. */
const entriesOf = (issue: SchemaIssue.Issue, path: Path, given?: string): ReadonlyArray<Entry> => {
  switch (issue._tag) {
    case "Filter":
      return entriesOf(issue.issue, path, given ?? writtenIn(issue.filter.annotations))
    case "Encoding":
      return entriesOf(issue.issue, path, given)
    case "Pointer":
      return entriesOf(issue.issue, [...path, ...issue.path], given)
    case "Composite":
      return issue.issues.flatMap((inner) => entriesOf(inner, path, given))
    case "AnyOf":
      return issue.issues.length > 0
        ? issue.issues.flatMap((inner) => entriesOf(inner, path, given))
        : entriesOf(new SchemaIssue.InvalidType(issue.ast), path, given)
    case "InvalidValue":
      return [{ path, message: given ?? expectedBy(issue.annotations) ?? INVALID }]
    case "Forbidden":
      return [{ path, message: given ?? "Forbidden operation" }]
    // made anew, without the input that the issue may report
    case "InvalidType":
      return leaf(path, given, new SchemaIssue.InvalidType(issue.ast))
    case "UnexpectedKey":
      return leaf(path, given, new SchemaIssue.UnexpectedKey(issue.ast))
    case "OneOf":
      return leaf(path, given, new SchemaIssue.OneOf(issue.ast, issue.successes))
    case "MissingKey":
      return leaf(path, given, issue)
  }
}

const leaf = (path: Path, given: string | undefined, issue: SchemaIssue.Leaf): ReadonlyArray<Entry> => [
  { path, message: given ?? SchemaIssue.defaultLeafHook(issue) }
]

/** Returns the schemas that a schema is made of. */
const partsOf = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.AST> => {
  if (SchemaAST.isDeclaration(ast)) return ast.typeParameters
  if (SchemaAST.isArrays(ast)) return [...ast.elements, ...ast.rest]
  if (SchemaAST.isUnion(ast)) return ast.types
  if (SchemaAST.isSuspend(ast)) return [ast.thunk()]
  return SchemaAST.isObjects(ast)
    ? [...ast.propertySignatures, ...ast.indexSignatures].map(({ type }) => type)
    : []
}

/** Returns the names of all properties that a schema, and the forms between which it decodes, are made of. */
const propertyNames = (root: SchemaAST.AST): ReadonlySet<PropertyKey> => {
  const names = new Set<PropertyKey>()
  const seen = new Set<SchemaAST.AST>()
  const rest: Array<SchemaAST.AST> = [root]
  for (let ast = rest.pop(); ast !== undefined; ast = rest.pop()) {
    if (seen.has(ast)) continue
    seen.add(ast)
    rest.push(...partsOf(ast), ...(ast.encoding ?? []).map(({ to }) => to))
    if (SchemaAST.isObjects(ast)) for (const { name } of ast.propertySignatures) names.add(name)
  }
  return names
}

const toIssue = ({ message, path }: Entry): SchemaIssue.Issue => {
  const issue = new SchemaIssue.InvalidValue({ message })
  return path.length === 0 ? issue : new SchemaIssue.Pointer(path, issue)
}

const errorOf = (issue: SchemaIssue.Issue, cause: unknown): Schema.SchemaError => {
  const error = new Schema.SchemaError(issue)
  return cause === undefined ? error : Object.assign(error, { cause })
}

/** Returns the function that removes values from the errors of a schema. The `cause` of an error stays. */
export const redactIssues = (ast: SchemaAST.AST): ((error: Schema.SchemaError) => Schema.SchemaError) => {
  let names: ReadonlySet<PropertyKey> | undefined
  return ({ cause, issue }) => {
    const known = (names ??= propertyNames(ast))
    const shown = (key: PropertyKey) => (typeof key === "number" || known.has(key) ? key : "<key>")
    const [first, ...others] = entriesOf(issue, []).map(({ message, path }) =>
      toIssue({ message, path: path.map(shown) })
    )
    if (first === undefined) return errorOf(new SchemaIssue.InvalidValue(), cause)
    return errorOf(
      others.length === 0 ? first : new SchemaIssue.Composite(Schema.Unknown.ast, [first, ...others]),
      cause
    )
  }
}
