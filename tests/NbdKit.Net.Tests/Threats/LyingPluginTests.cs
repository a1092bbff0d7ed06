using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A plugin whose answers do not say what its calls do: an error, never a crash, and never a success that did nothing.</summary>
public sealed class LyingPluginTests
{
    private const int Size = 64 << 10;

    private static readonly NbdExportInfo Honest = new() { Size = Size };

    private static IEnumerable<TestCaseData> Lies()
    {
        yield return Lie("can_write", info => info with { CanWrite = true }, Cmd.Write, WireError.Perm);
        yield return Lie("can_flush", info => info with { CanFlush = true }, Cmd.Flush, WireError.Inval);
        yield return Lie("can_trim", info => info with { CanWrite = true, CanTrim = true }, Cmd.Trim, WireError.Inval);

        // A native zero that is not there is tried as a write, which is not there either; a fast one is not.
        yield return Lie("can_zero", info => info with { CanWrite = true, CanZero = Support.Native }, Cmd.WriteZeroes, WireError.Perm);
        yield return Lie(
            "can_fast_zero", info => info with { CanWrite = true, CanZero = Support.Native, CanFastZero = true }, Cmd.WriteZeroes,
            WireError.NotSup, CmdFlag.FastZero);
        yield return Lie(
            "can_fast_zero by writing", info => info with { CanWrite = true, CanFastZero = true }, Cmd.WriteZeroes, WireError.NotSup,
            CmdFlag.FastZero);
        yield return Lie(
            "can_fua", info => info with { CanWrite = true, CanFua = Support.Native }, Cmd.Write, WireError.Perm, CmdFlag.Fua);
        yield return Lie(
            "can_fua by flushing", info => info with { CanWrite = true, CanFlush = true, CanFua = Support.Emulate }, Cmd.Write,
            WireError.Perm, CmdFlag.Fua);
        yield return Lie("can_extents", info => info with { CanExtents = true }, Cmd.BlockStatus, WireError.Inval);
        yield return Lie(
            "can_extents of any context", info => info with { CanExtents = true, MetaContexts = ["base:allocation", "x-y:z"] }, Cmd.BlockStatus,
            WireError.Inval);

        // Caching does nothing that a client could see, and a read that tells nothing of holes is data.
        yield return Lie("can_cache", info => info with { CanCache = Support.Native }, Cmd.Cache, WireError.Ok);
        yield return Lie("can_read_sparse", info => info with { CanReadSparse = Support.Native }, Cmd.Read, WireError.Ok);
        yield return Lie(
            "can_read_sparse by extents", info => info with { CanExtents = true, CanReadSparse = Support.Emulate }, Cmd.Read, null);
        yield return Lie("can_multi_conn", info => info with { CanMultiConn = true }, Cmd.Read, WireError.Ok);
        yield return Lie("can_df", info => info with { CanDf = true }, Cmd.Read, WireError.Ok, CmdFlag.Df);
        yield return Lie("is_rotational", info => info with { IsRotational = true }, Cmd.Read, WireError.Ok);
        yield return Lie("size", info => info with { Size = long.MaxValue }, Cmd.Read, WireError.Io, offset: Size);
        yield return Lie("is_blocking", info => info with { IsBlocking = true }, Cmd.Read, WireError.Ok);
    }

    [TestCaseSource(nameof(Lies)), Property("Threat", "nbdkit-d5a4190e")]
    public async Task What_is_promised_and_not_there_is_an_error_of_one_request(
        Func<NbdExportInfo, NbdExportInfo> lie, ushort command, uint? error, ushort flags, ulong offset)
    {
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(new ReadOnlyDisk { Info = lie(Honest) }));
        WireClient bystander = await server.TransmitAsync("");
        foreach (bool extended in new[] { false, true })
        {
            WireClient client = await server.HaggleAsync();
            await (extended ? client.ExtendedAsync() : client.StructuredAsync());
            await client.SetMetaAsync("", "base:allocation", "x-y:z");
            // To ask first and then to enter opens the plugin twice.
            Assert.That((await client.InfoAsync()).IsAck);
            await client.GoAsync();
            bool hasData = command == Cmd.Write;
            ushort payload = hasData && extended ? CmdFlag.PayloadLength : CmdFlag.None;
            ulong length = command == Cmd.Flush ? 0u : 4096u;
            WireReply reply = await client.CallAsync(
                command, offset, length, (ushort)(flags | payload), hasData ? new byte[4096] : null);
            Assert.That(error is null || reply.Error == error, $"{reply.Call}: {reply.Error}, {reply.Message}");
            await client.ExpectAliveAsync(new byte[Size]);
            await bystander.ExpectAliveAsync(new byte[Size]);
        }
        Assert.That(server.Log.Entries.Select(entry => entry.Text), Has.None.Contains("defect"));
    }

    private static TestCaseData Lie(
        string name, Func<NbdExportInfo, NbdExportInfo> lie, ushort command, uint? error, ushort flags = 0, ulong offset = 0)
        => new TestCaseData(lie, command, error, flags, offset).SetArgDisplayNames(name);

    private sealed class ReadOnlyDisk : INbdPlugin, INbdPluginHandle
    {
        public required NbdExportInfo Info { get; init; }

        public string Name => "liar";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(Info);

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            if (offset >= Size)
            {
                throw new EndOfStreamException();
            }
            buffer.Span.Clear();
            return default;
        }
    }
}
