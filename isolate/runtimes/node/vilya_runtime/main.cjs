// Entry of the runtime: `node [options] main.cjs ADDON RELEASE [ahead]`, the release being the worker's. With `ahead` it waits to be told its
// function.
'use strict';

require('./server.cjs').main(process.argv[2], process.argv[3], process.argv[4] === 'ahead');
