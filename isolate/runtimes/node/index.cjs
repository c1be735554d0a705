// What a function may require: `const { raw } = require('@vilya/runtime')`. In a sandbox the global `vilya` has the same.
'use strict';

const { raw } = require('./vilya_runtime/handlers.cjs');

module.exports = { raw };
