using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Which error numbers travel ("Error values").</summary>
public sealed class ErrorNumberTests : WireTest
{
    private static readonly ushort[] Commands =
        [Cmd.Read, Cmd.Write, Cmd.Flush, Cmd.Trim, Cmd.Cache, Cmd.WriteZeroes, Cmd.BlockStatus];

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S170"), Property("Rule", "S206"), Property("Rule", "S220"), Property("Rule", "S180")]
    public async Task S170_S206_S220_S180_Whatever_a_plugin_throws_the_number_is_legal_and_the_session_goes_on(bool structured)
    {
        Exception[] exceptions =
        [
            new IOException("disk"), new IOException("disk", unchecked((int)0x80070005)), new IOException("disk", 4),
            new EndOfStreamException(), new FileNotFoundException(), new UnauthorizedAccessException(),
            new NotSupportedException(), new NotImplementedException(), new ObjectDisposedException("handle"),
            new OperationCanceledException(), new TaskCanceledException(), new TimeoutException(), new OutOfMemoryException(),
            new InsufficientMemoryException(), new NullReferenceException(), new ArgumentException("argument"),
            new InvalidOperationException(), new OverflowException(), new DivideByZeroException(), new InvalidCastException(),
            new System.Net.Sockets.SocketException(104), new System.ComponentModel.Win32Exception(5),
            new AggregateException(new IOException()), new Exception(), new NbdException((NbdError)9999, "no such number"),
            new NbdException(0, "zero"), new NbdException((NbdError)(-1), "negative"),
        ];
        var export = new TestExport();
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(meta: structured);
        foreach (Exception exception in exceptions)
        {
            foreach (bool late in new[] { false, true })
            {
                export.Before = late ? async _ => await FailLateAsync(exception) : _ => throw exception;
                foreach (ushort command in Commands)
                {
                    if (command == Cmd.WriteZeroes && exception is NotSupportedException)
                    {
                        continue;
                    }
                    WireReply reply = await CallAsync(client, command);
                    Assert.That(reply.Error, Is.Not.Zero, $"{exception.GetType()} in {reply.Call}");
                    Assert.That(reply.Message, Does.Not.Contain("   at "), "no stack trace");
                }
            }
            export.Before = null;
            await client.ExpectAliveAsync(server.Plugin.Data);
        }
    }

    [TestCase(NbdError.PermissionDenied, WireError.Perm)]
    [TestCase(NbdError.IoError, WireError.Io)]
    [TestCase(NbdError.OutOfMemory, WireError.NoMem)]
    [TestCase(NbdError.InvalidArgument, WireError.Inval)]
    [TestCase(NbdError.NoSpace, WireError.NoSpc)]
    [TestCase(NbdError.Shutdown, WireError.Shutdown)]
    [TestCase(NbdError.Overflow, WireError.Inval)]
    [TestCase(NbdError.NotSupported, WireError.Inval)]
    [Property("Rule", "S170"), Property("Rule", "S172"), Property("Rule", "S173")]
    public async Task S170_S172_S173_The_number_that_a_plugin_gives_travels_where_it_is_allowed(NbdError error, uint expected)
    {
        foreach (bool structured in new[] { false, true })
        {
            ServerFixture server = await ServeAsync(new TestExport { Before = _ => throw new NbdException(error, "no") });
            WireClient client = await server.TransmitAsync(meta: structured);
            foreach (ushort command in Commands)
            {
                if (command == Cmd.WriteZeroes && error == NbdError.NotSupported)
                {
                    continue;
                }
                WireReply reply = await CallAsync(client, command);
                bool negotiated = structured || command != Cmd.BlockStatus;
                Assert.That(reply.Error, Is.EqualTo(negotiated ? expected : WireError.Inval), $"{reply.Call}");
            }
        }
    }

    [Property("Rule", "S171")]
    [TestCase(28)]
    [TestCase(27)]
    [TestCase(122)]
    [TestCase(unchecked((int)0x80070070))]
    [TestCase(unchecked((int)0x80070027))]
    public async Task S171_A_full_disk_quota_or_file_is_no_space(int hresult)
    {
        ServerFixture server = await ServeAsync(new TestExport { Before = _ => throw new IOException("full", hresult) });
        WireClient client = await server.TransmitAsync();

        await client.ExpectCallAsync(WireError.NoSpc, Cmd.Write, 0, 512, payload: new byte[512]);
        await client.ExpectCallAsync(WireError.NoSpc, Cmd.WriteZeroes, 0, 512);
    }

    [Test, Property("Rule", "S172"), Property("Rule", "S198")]
    public async Task S172_S198_EOVERFLOW_travels_only_for_a_read_that_must_not_be_fragmented()
    {
        ServerFixture server = await ServeAsync(
            new TestExport { Before = _ => throw new NbdException(NbdError.Overflow, "too long") });
        WireClient client = await server.TransmitAsync(structured: true);

        WireReply reply = await client.ExpectCallAsync(WireError.Overflow, Cmd.Read, 0, 512, CmdFlag.Df);
        await client.ExpectCallAsync(WireError.Inval, Cmd.Read, 0, 512);

        Assert.That(reply.Chunks.Select(chunk => chunk.Type), Is.EqualTo(new[] { ChunkType.Error }), "no content chunk");
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S173"), Property("Rule", "S217"), Property("Rule", "S218")]
    public async Task S173_S217_S218_ENOTSUP_travels_only_for_a_fast_zero(bool byException)
    {
        var export = new TestExport
        {
            Before = call => call.Op != PluginOp.Zero ? default
                : byException ? throw new NotSupportedException()
                : throw new NbdException(NbdError.NotSupported, "slow"),
        };
        byte[] before = [.. export.Data];
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.TransmitAsync(structured: true);

        await client.ExpectCallAsync(WireError.NotSup, Cmd.WriteZeroes, 0, 4096, CmdFlag.FastZero);
        Assert.That(export.Data, Is.EqualTo(before), "a fast zero that fails changes nothing");
        await client.ExpectCallAsync(WireError.Ok, Cmd.WriteZeroes, 0, 4096);

        Assert.That(export.Data[..4096], Is.All.Zero);
        Assert.That(export.Data[4096..], Is.EqualTo(before[4096..]));
    }

    private static Task<WireReply> CallAsync(WireClient client, ushort command)
        => client.CallAsync(
            command, 0, command == Cmd.Flush ? 0u : 512u, payload: command == Cmd.Write ? new byte[512] : null);

    private static async Task FailLateAsync(Exception exception)
    {
        await Task.Yield();
        throw exception;
    }
}
