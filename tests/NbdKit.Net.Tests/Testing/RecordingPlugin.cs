namespace NbdKit.Tests.Testing;

/// <summary>
/// A disk in memory that records every callback. All its contexts serve the same bytes; the number of a context in the
/// record tells by which open it came about. Use <see cref="Script"/> to make callbacks wait or fail.
/// </summary>
internal sealed class RecordingPlugin(CallRecorder recorder) : INbdPlugin
{
    private int _opens;

    public string Name { get; init; } = "plugin";

    public ThreadModel ThreadModel { get; init; } = ThreadModel.Parallel;

    public byte[] Data { get; init; } = new byte[65_536];

    public CallScript Script { get; } = new(recorder);

    /// <summary>
    /// Changes what a context says about itself; it gets the number of the context. By default everything is native.
    /// </summary>
    public Func<int, NbdExportInfo, NbdExportInfo> Info { get; set; } = (_, info) => info;

    /// <summary>Answers for extents; by default all is data.</summary>
    public Action<long, long, ExtentList> Extents { get; set; } = (offset, length, list) => list.Add(offset, length, ExtentStatus.Data);

    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "ready"), cancellationToken);

    public ValueTask StartAsync(CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "start"), cancellationToken);

    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "preconnect") { ReadOnly = readOnly }, cancellationToken);

    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        await Script.RunAsync(new RecordedCall(Name, "list") { ReadOnly = readOnly }, cancellationToken);
        exports.AddDefault();
    }

    public async ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        await Script.RunAsync(new RecordedCall(Name, "default") { ReadOnly = readOnly }, cancellationToken);
        return "";
    }

    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        int number = Interlocked.Increment(ref _opens);
        await Script.RunAsync(
            new RecordedCall(Name, "open", number) { ExportName = context.ExportName, ReadOnly = context.ReadOnly },
            cancellationToken);
        return new Handle(this, number);
    }

    public ValueTask CleanupAsync(CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "cleanup"), cancellationToken);

    private sealed class Handle(RecordingPlugin plugin, int number) : INbdPluginHandle
    {
        public async ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        {
            await plugin.Script.RunAsync(Call("info"), cancellationToken);
            return plugin.Info(number, new NbdExportInfo
            {
                Size = plugin.Data.Length,
                CanWrite = true,
                CanFlush = true,
                CanTrim = true,
                CanZero = Support.Native,
                CanFastZero = true,
                CanFua = Support.Native,
                CanCache = Support.Native,
                CanExtents = true,
                CanMultiConn = true,
            });
        }

        public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            await plugin.Script.RunAsync(Call("read", offset, buffer.Length), cancellationToken);
            lock (plugin.Data)
            {
                plugin.Data.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
            }
        }

        public async ValueTask WriteAsync(
            ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            await plugin.Script.RunAsync(Call("write", offset, data.Length, flags), cancellationToken);
            lock (plugin.Data)
            {
                data.Span.CopyTo(plugin.Data.AsSpan((int)offset));
            }
        }

        public ValueTask FlushAsync(CancellationToken cancellationToken)
            => plugin.Script.RunAsync(Call("flush"), cancellationToken);

        public async ValueTask TrimAsync(
            long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        {
            await plugin.Script.RunAsync(Call("trim", offset, length, flags), cancellationToken);
            Clear(offset, length);
        }

        public async ValueTask ZeroAsync(
            long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        {
            await plugin.Script.RunAsync(Call("zero", offset, length, flags), cancellationToken);
            Clear(offset, length);
        }

        public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
            => plugin.Script.RunAsync(Call("cache", offset, length), cancellationToken);

        public async ValueTask ExtentsAsync(
            long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        {
            await plugin.Script.RunAsync(Call("extents", offset, length, flags), cancellationToken);
            plugin.Extents(offset, length, extents);
        }

        public ValueTask CloseAsync() => plugin.Script.RunAsync(Call("close"), CancellationToken.None);

        private void Clear(long offset, long length)
        {
            lock (plugin.Data)
            {
                plugin.Data.AsSpan((int)offset, (int)length).Clear();
            }
        }

        private RecordedCall Call(string callback, long offset = 0, long length = 0, RequestFlags flags = RequestFlags.None)
            => new(plugin.Name, callback, number) { Offset = offset, Length = length, Flags = flags };
    }
}
