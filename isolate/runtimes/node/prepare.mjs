// Copies the built addon into this package. Run by `npm pack`; `VILYA_ADDON` names one that lies elsewhere.
import { copyFileSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const here = (name) => new URL(name, import.meta.url).pathname;
const built = process.env.VILYA_ADDON ?? here('../../../target/release/libvilya_node.so');
try {
  copyFileSync(built, here('vilya.node'));
} catch (error) {
  console.error(`${error.message}\nbuild it first: cargo build --release -p vilya-node`);
  process.exit(1);
}
const { version } = JSON.parse(readFileSync(here('package.json'), 'utf8'));
const { VERSION } = createRequire(import.meta.url)(here('vilya.node'));
if (VERSION !== version) {
  console.error(`the addon is of release ${VERSION}, this package of ${version}: build it from the same checkout`);
  process.exit(1);
}
