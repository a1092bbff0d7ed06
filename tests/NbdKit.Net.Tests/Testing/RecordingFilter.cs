namespace NbdKit.Tests.Testing;

/// <summary>A filter that changes nothing and records every callback. See <see cref="RecordingPlugin"/>.</summary>
internal sealed class RecordingFilter(CallRecorder recorder, string name = "filter") : INbdFilter
{
    private int _opens;

    public string Name { get; } = name;

    public CallScript Script { get; } = new(recorder);

    /// <summary>Changes what a context says about itself; it gets the number of the context.</summary>
    public Func<int, NbdExportInfo, NbdExportInfo> Info { get; set; } = (_, info) => info;

    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "ready"), cancellationToken);

    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "start"), cancellationToken);

    public async ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        await Script.RunAsync(new RecordedCall(Name, "preconnect") { ReadOnly = readOnly }, cancellationToken);
        await next.PreconnectAsync(connection, readOnly, cancellationToken);
    }

    public async ValueTask ListExportsAsync(
        NbdBackend next, ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        await Script.RunAsync(new RecordedCall(Name, "list") { ReadOnly = readOnly }, cancellationToken);
        await next.ListExportsAsync(exports, readOnly, connection, cancellationToken);
    }

    public async ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        await Script.RunAsync(new RecordedCall(Name, "default") { ReadOnly = readOnly }, cancellationToken);
        return await next.DefaultExportAsync(readOnly, connection, cancellationToken);
    }

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        int number = Interlocked.Increment(ref _opens);
        var call = new RecordedCall(Name, "open", number) { ExportName = context.ExportName, ReadOnly = context.ReadOnly };
        await Script.RunAsync(call, cancellationToken);
        try
        {
            await context.OpenNextAsync(cancellationToken);
        }
        catch
        {
            Script.Recorder.Add(call with { Failed = true });
            throw;
        }
        return new Handle(this, number);
    }

    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
        => Script.RunAsync(new RecordedCall(Name, "cleanup"), cancellationToken);

    private sealed class Handle(RecordingFilter filter, int number) : INbdFilterHandle
    {
        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
            => filter.Script.RunAsync(Call("prepare"), cancellationToken);

        public async ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("info"), cancellationToken);
            return filter.Info(number, next.Info);
        }

        public async ValueTask ReadAsync(
            NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("read", offset, buffer.Length), cancellationToken);
            await next.ReadAsync(buffer, offset, cancellationToken);
        }

        public async ValueTask WriteAsync(
            NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("write", offset, data.Length, flags), cancellationToken);
            await next.WriteAsync(data, offset, flags, cancellationToken);
        }

        public async ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("flush"), cancellationToken);
            await next.FlushAsync(cancellationToken);
        }

        public async ValueTask TrimAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("trim", offset, length, flags), cancellationToken);
            await next.TrimAsync(offset, length, flags, cancellationToken);
        }

        public async ValueTask ZeroAsync(
            NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("zero", offset, length, flags), cancellationToken);
            await next.ZeroAsync(offset, length, flags, cancellationToken);
        }

        public async ValueTask CacheAsync(
            NextContext next, long offset, long length, CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("cache", offset, length), cancellationToken);
            await next.CacheAsync(offset, length, cancellationToken);
        }

        public async ValueTask ExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
        {
            await filter.Script.RunAsync(Call("extents", offset, length, flags), cancellationToken);
            await next.ExtentsAsync(offset, length, flags, extents, cancellationToken);
        }

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
            => filter.Script.RunAsync(Call("finalize"), cancellationToken);

        public ValueTask CloseAsync() => filter.Script.RunAsync(Call("close"), CancellationToken.None);

        private RecordedCall Call(string callback, long offset = 0, long length = 0, RequestFlags flags = RequestFlags.None)
            => new(filter.Name, callback, number) { Offset = offset, Length = length, Flags = flags };
    }
}
