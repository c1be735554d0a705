// CSV in (RFC 4180, the first line names the columns), JSON out: an array with an object a line.

const FIELD = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|$)/y;

export const handler = vilya.raw((body, context) => {
  const [names, ...rows] = parse(body.toString('utf8'));
  const objects = rows.map((row) => Object.fromEntries(names.map((name, column) => [name, row[column] ?? null])));
  context.contentType = 'application/json';
  return Buffer.from(JSON.stringify(objects));
});

function parse(text) {
  const rows = [[]];
  FIELD.lastIndex = 0;
  while (FIELD.lastIndex < text.length) {
    const at = FIELD.lastIndex;
    const field = FIELD.exec(text);
    if (field === null) throw new SyntaxError(`a quote is not closed, or stands within a field, at character ${at}`);
    rows.at(-1).push(field[1]?.replaceAll('""', '"') ?? field[2]);
    if (field[3] !== ',' && FIELD.lastIndex < text.length) rows.push([]);
  }
  return rows;
}
