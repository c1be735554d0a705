// Entry of the runtime: `node [options] main.cjs ADDON RELEASE`, the release being the worker's.
'use strict';

require('./server.cjs').main(process.argv[2], process.argv[3]);
