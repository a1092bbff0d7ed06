namespace NbdKit.Tests.Testing;

/// <summary>Runs Python scripts that use libnbd, as nbdsh does.</summary>
internal static class LibNbd
{
    // The interpreter that the distribution's bindings belong to.
    private const string Python = "/usr/bin/python3";

    /// <summary>What each script may use: how to connect, and how to say that a call must fail.</summary>
    private const string Prelude = """
        import errno, nbd, sys

        uri = sys.argv[1]

        def connect(name=None, strict=False, contexts=(nbd.CONTEXT_BASE_ALLOCATION,), **settings):
            h = nbd.NBD()
            if not strict:
                h.set_strict_mode(0)
            for context in contexts:
                h.add_meta_context(context)
            for setting, value in settings.items():
                getattr(h, 'set_' + setting)(value)
            if name is not None:
                h.set_opt_mode(True)
            h.connect_uri(uri)
            if name is not None:
                h.set_export_name(name)
                h.opt_go()
            return h

        def fails(number, call, *args, **keywords):
            try:
                call(*args, **keywords)
            except nbd.Error as e:
                assert e.errnum == number, f'{errno.errorcode[number]} expected, but: {e}'
            else:
                raise AssertionError(f'{errno.errorcode[number]} expected, but the call succeeded')

        def wait(h, cookie):
            while not h.aio_command_completed(cookie):
                assert h.poll(20000) == 1, 'no reply'

        def extents(h, length, offset, flags=0):
            found = []
            def add(context, start, entries, error):
                found.extend(zip(entries[0::2], entries[1::2]))
            h.block_status(length, offset, add, flags)
            return found


        """;

    /// <summary>Ignores or fails the test unless libnbd's Python bindings are installed.</summary>
    public static async Task RequireAsync()
    {
        Peer.Require(Python);
        if ((await Peer.RunAsync(Python, "-c", "import nbd")).Status != 0)
        {
            Peer.Missing("python3-libnbd");
        }
    }

    /// <summary>Runs a script that must end without an exception, and returns what it printed.</summary>
    public static async Task<string> RunAsync(string uri, string script)
    {
        await RequireAsync();
        return await Peer.OutputAsync(Python, "-c", Prelude + script, uri);
    }
}
