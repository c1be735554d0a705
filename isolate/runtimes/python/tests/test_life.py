"""Starting, failing, printing and stopping."""

import json
import mmap
import os
import tempfile
import unittest

from fake_worker import RUNTIME, Sandbox, layout, open_when_read
from vilya_runtime import memory


def error(claim):
    return json.loads(claim.payload)


class Errors(unittest.TestCase):
    def test_an_exception_is_reported_without_the_runtimes_frames(self):
        source = """
        class Storm(Exception):
            pass

        def deeper(event):
            raise Storm(event)

        def handler(event, context):
            deeper(event)
        """
        with Sandbox(source).ready() as sandbox:
            claim = sandbox.invoke(b'"of the century"')
            self.assertEqual(claim.kind, layout.RAISED)
            record = error(claim)
            self.assertEqual((record["errorType"], record["errorMessage"]), ("Storm", "of the century"))
            trace = record["stackTrace"]
            self.assertEqual(len(trace), 2)
            self.assertIn("app.py", trace[0])
            self.assertIn("in handler", trace[0])
            self.assertIn("raise Storm(event)", trace[1])
            self.assertNotIn(RUNTIME, "".join(trace))
            self.assertIn("[ERROR] Storm: of the century", sandbox.log())

    def test_errors_that_resist_reporting_are_reported(self):
        source = """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no")

        def recurse():
            recurse()

        def handler(event, context):
            if event == "mute":
                raise Mute
            if event == "recursion":
                recurse()
            if event == "interrupt":
                raise KeyboardInterrupt
            if event == "surrogate":
                raise ValueError("\\ud800")
            if event == "huge":
                raise ValueError("x" * 10_000_000)
            if event == "generator":
                raise GeneratorExit
            return event
        """
        with Sandbox(source, payload_limit=4096).ready() as sandbox:
            for event, error_type in (
                ("mute", "Mute"),
                ("recursion", "RecursionError"),
                ("interrupt", "KeyboardInterrupt"),
                ("surrogate", "ValueError"),
                ("huge", "ValueError"),
                ("generator", "GeneratorExit"),
            ):
                claim = sandbox.invoke(json.dumps(event).encode())
                self.assertEqual((claim.kind, error(claim)["errorType"]), (layout.RAISED, error_type))
                self.assertLessEqual(claim.payload_bytes, 4096)
            self.assertEqual(sandbox.call("well"), "well")

    def test_sys_exit_in_a_handler_ends_the_process(self):
        source = """
        import sys
        def handler(event, context):
            sys.exit(event)
        """
        for lanes in (1, 3):
            for code, status in ((0, 0), (7, 7), ("gone", 1)):
                with Sandbox(source, lanes=lanes).ready() as sandbox:
                    sandbox.regions.submit(json.dumps(code).encode())
                    self.assertIsNone(sandbox.wait())
                    self.assertEqual(sandbox.exit_status(), status)


class Starting(unittest.TestCase):
    def failed(self, source, **options):
        with Sandbox(source, **options) as sandbox:
            claim = sandbox.wait()
            self.assertIsNotNone(claim, sandbox.log())
            self.assertEqual((claim.kind, claim.invocation, claim.lane), (layout.INIT_FAILED, 0, 0))
            self.assertEqual(sandbox.exit_status(), 1)
            return error(claim)

    def test_what_keeps_a_handler_from_loading_is_said(self):
        for source, options, error_type, message in (
            ("import no_such_thing", {}, "Runtime.ImportModuleError", "no_such_thing"),
            ("", {}, "Runtime.HandlerNotFound", "'handler' missing on module 'app'"),
            ("handler = 1", {}, "Runtime.HandlerNotFound", "not a function"),
            ("def handler(:", {}, "Runtime.UserCodeSyntaxError", "app.py"),
            ("", {"handler": "app"}, "Runtime.MalformedHandlerName", "module.function"),
            ("", {"handler": ""}, "Runtime.MalformedHandlerName", "module.function"),
            ("", {"handler": "sky.handler"}, "Runtime.ImportModuleError", "sky"),
            ("raise SystemExit(3)", {}, "Runtime.ExitError", "sys.exit(3)"),
            ("1 / 0", {}, "ZeroDivisionError", "division by zero"),
        ):
            record = self.failed(source, **options)
            self.assertEqual(record["errorType"], error_type)
            self.assertIn(message, record["errorMessage"])
        self.assertIn("1 / 0", record["stackTrace"][0])
        self.assertEqual(len(record["stackTrace"]), 1)

    def test_a_failure_larger_than_a_slot_arrives_whole(self):
        record = self.failed("raise ValueError('x' * 5000)")
        self.assertEqual(record["errorMessage"], "x" * 5000)

    def test_the_up_region_is_signed_before_ready(self):
        with Sandbox("def handler(e, c): return 1").ready() as sandbox:
            up = sandbox.regions.up
            self.assertEqual(int.from_bytes(up[0:8], "little"), layout.UP_MAGIC)
            self.assertEqual(int.from_bytes(up[8:12], "little"), layout.ABI_VERSION)

    def test_regions_of_another_release_are_refused_clearly(self):
        for header, message in (
            ({"magic": 1}, "not a region of a worker"),
            ({"abi": 99}, "the worker speaks ABI 99"),
            ({"submission_stride": 640}, "submission_stride = 640"),
        ):
            with Sandbox("def handler(e, c): return 1", header=header) as sandbox:
                self.assertIsNone(sandbox.wait())
                self.assertEqual(sandbox.exit_status(), 1)
                self.assertIn(message, sandbox.log())
                self.assertNotIn("Traceback", sandbox.log())

    def test_a_function_sees_its_own_modules_and_not_the_runtimes(self):
        source = """
        import os, sys
        import vilya
        def handler(event, context):
            found = []
            for name in ("channel", "handlers", "layout", "metadata", "server"):
                try:
                    __import__(name)
                    found.append(name)
                except ImportError:
                    pass
            return [found, sys.path[0] == os.getcwd(), vilya.raw.__name__]
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual(sandbox.call(None), [[], True, "raw"])

    def test_children_of_the_function_do_not_inherit_the_rings(self):
        source = """
        import os
        def handler(event, context):
            return [os.get_inheritable(descriptor) for descriptor in (3, 4, 5)]
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual(sandbox.call(None), [False] * 3)


class Output(unittest.TestCase):
    def test_what_was_printed_is_out_before_the_completion(self):
        source = """
        import logging, sys
        def handler(event, context):
            print("out", event, end="")
            print("err", event, end="", file=sys.stderr)
            logging.getLogger("app").warning("log %s", event)
            if event == 2:
                raise ValueError("after printing")
            return event
        """
        for lanes in (1, 2):
            with Sandbox(source, lanes=lanes).ready() as sandbox:
                expected = ""
                for event in range(4):
                    sandbox.invoke(str(event).encode())
                    expected += f"out {event}"
                    self.assertEqual(sandbox.output(), expected)
                    self.assertIn(f"log {event}", sandbox.log())
                    self.assertIn(f"err {event}", sandbox.log())

    def test_bytes_and_streams_of_the_functions_own_are_out_too(self):
        source = """
        import codecs, io, sys
        early = sys.stderr.buffer
        plain = sys.stdout
        def handler(event, context):
            if event == 0:
                sys.stdout.buffer.write(b"bytes,")
            elif event == 1:
                sys.stdout.buffer.write(b"again,")
            elif event == 2:
                early.write(b"kept buffer,")
            elif event == 3:
                sys.stdout.writelines(["lines,", "lines,"])
            elif event == 4:
                sys.stdout = codecs.getwriter("latin-1")(sys.stdout.buffer)
                sys.stdout.write("writer,")
            elif event == 5:
                sys.stdout = open(1, "w", closefd=False)
            elif event == 6:
                print("own", end=",")
            elif event == 7:
                sys.stdout = sys.__stdout__
                print("first", end=",")
            elif event == 8:
                sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")
                sys.__stdout__ = None
                print("detached", end=",")
            return event
        """
        out = "bytes,", "again,", "", "lines,lines,", "writer,", "", "own,", "first,", "detached,"
        with Sandbox(source).ready() as sandbox:
            for event, _ in enumerate(out):
                self.assertEqual(sandbox.call(event), event)
                self.assertEqual(sandbox.output(), "".join(out[: event + 1]))
                self.assertEqual(sandbox.log(), "kept buffer," if event >= 2 else "")

    def test_the_standard_streams_are_as_the_interpreter_makes_them(self):
        source = """
        import io, sys
        def handler(event, context):
            return [[isinstance(stream, io.TextIOWrapper), stream.name, stream.mode, stream.encoding, stream.errors,
                     stream.newlines, stream.line_buffering, stream.write_through, stream.isatty(), stream.fileno(),
                     stream is original, stream.write("a\\n")]
                    for stream, original in ((sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__))]
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual(
                sandbox.call(None),
                [
                    [True, name, "w", "utf-8", errors, None, True, False, False, descriptor, True, 2]
                    for name, errors, descriptor in (("<stdout>", "surrogateescape", 1), ("<stderr>", "backslashreplace", 2))
                ],
            )

    def test_output_that_could_not_be_written_is_tried_again(self):
        source = """
        import os, sys
        def handler(event, context):
            if event == 0:
                os.dup2(os.open("/dev/full", os.O_WRONLY), 10)
                os.dup2(1, 11)
                os.dup2(10, 1)
                print("late", end="")
            if event == 1:
                os.dup2(11, 1)
            return event
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual([sandbox.call(0), sandbox.output()], [0, ""])
            self.assertEqual([sandbox.call(1), sandbox.output()], [1, "late"])

    def test_closed_and_replaced_streams_do_not_fail_an_invocation(self):
        source = """
        import sys
        def handler(event, context):
            if event == 0:
                sys.stdout.close()
            if event == 1:
                sys.stdout = sys.stderr = None
            if event == 2:
                raise ValueError("unheard")
            return event
        """
        with Sandbox(source).ready() as sandbox:
            self.assertEqual([sandbox.call(0), sandbox.call(1)], [0, 1])
            self.assertEqual(error(sandbox.invoke(b"2"))["errorMessage"], "unheard")


class Importing(unittest.TestCase):
    def test_what_an_invocation_imports_is_told_once_packages_first(self):
        source = """
        def handler(event, context):
            if event:
                import wsgiref.util
            if event == 2:
                import colorsys
        """
        with Sandbox(source).ready() as sandbox:
            sandbox.call(0)
            sandbox.call(1)
            sandbox.call(2)
            names = sandbox.regions.imported.split(" ")
            self.assertIn("wsgiref", names)
            self.assertIn("wsgiref.util", names)
            self.assertLess(names.index("wsgiref"), names.index("wsgiref.util"))
            self.assertNotIn("colorsys", names)
            self.assertFalse([name for name in names if name.startswith("vilya_runtime")])

    def test_what_loading_imports_is_not_told(self):
        with Sandbox("import wsgiref.util\ndef handler(event, context): pass").ready() as sandbox:
            sandbox.call(0)
            self.assertIsNone(sandbox.regions.imported)


class Trimming(unittest.TestCase):
    SOURCE = """
    import gc
    kept = []

    def private():
        resident, shared = map(int, open("/proc/self/statm").read().split()[1:3])
        return (resident - shared) * 4096

    def handler(event, context):
        if event == "cycles":
            for _ in range(64):
                cycle = {"bytes": bytearray(1 << 20)}
                cycle["self"] = cycle
        if event == "keep":
            kept.append(bytearray(64 << 20))
        if event == "off":
            gc.disable()
        return private(), gc.get_stats()[2]["collections"]
    """

    def test_what_is_unreachable_is_given_back_when_nothing_is_asked(self):
        for lanes in (1, 3):
            with Sandbox(self.SOURCE, lanes=lanes).ready() as sandbox:
                before, _ = sandbox.call("cycles")
                sandbox.regions.advise_trim()
                after, _ = sandbox.call("see")
                self.assertGreater(before - after, 60 << 20)

    def test_what_is_kept_is_looked_at_once(self):
        with Sandbox(self.SOURCE).ready() as sandbox:
            _, first = sandbox.call("keep")
            collections = []
            for _ in range(3):
                sandbox.regions.advise_trim()
                private, count = sandbox.call("see")
                self.assertGreater(private, 64 << 20)
                collections.append(count - first)
            self.assertEqual(collections, [1, 1, 1])

    def test_a_small_sandbox_and_one_that_wants_no_collection_have_none(self):
        with Sandbox(self.SOURCE).ready() as sandbox:
            private, first = sandbox.call("see")
            # An interpreter in a shared library of its own may hold more by itself than what counts as growth; it is collected once.
            is_large = private >= memory._GROWTH_PAGES * mmap.PAGESIZE
            sandbox.regions.advise_trim()
            self.assertEqual(sandbox.call("off")[1] - first, int(is_large))
            sandbox.call("cycles")
            sandbox.regions.advise_trim()
            self.assertEqual(sandbox.call("see")[1] - first, int(is_large))


class Stopping(unittest.TestCase):
    def test_stop_ends_an_idle_runtime(self):
        for lanes in (1, 4):
            with Sandbox("def handler(e, c): return 1", lanes=lanes).ready() as sandbox:
                sandbox.regions.stop()
                self.assertIsNone(sandbox.wait())
                self.assertEqual(sandbox.exit_status(), 0)

    def test_what_runs_is_finished_before_stopping(self):
        source = """
        def handler(event, context):
            with open(event) as pipe:
                return pipe.read()
        """
        for lanes in (1, 2):
            with tempfile.TemporaryDirectory() as folder, Sandbox(source, lanes=lanes).ready() as sandbox:
                path = os.path.join(folder, "pipe")
                os.mkfifo(path)
                sandbox.regions.submit(json.dumps(path).encode())
                with open_when_read(path) as pipe:
                    sandbox.regions.stop()
                    pipe.write("last words")
                self.assertEqual(json.loads(sandbox.wait().payload), "last words")
                self.assertIsNone(sandbox.wait())
                self.assertEqual(sandbox.exit_status(), 0)


if __name__ == "__main__":
    unittest.main()
