using NbdKit.Layers;
using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins.Scripts;

/// <summary>An export that a script has opened.</summary>
internal sealed partial class ScriptHandle : INbdPluginHandle
{
    private const int ExtentsLimit = 64 << 20;

    private static readonly TimeSpan LongestClose = TimeSpan.FromSeconds(30);

    private readonly ScriptHost _host;
    private readonly string _handle;
    private readonly NbdConnection? _connection;
    private readonly bool _readOnly;
    private readonly RequestGate? _gate;

    public ScriptHandle(ScriptHost host, string handle, NbdOpenContext context)
    {
        _host = host;
        _handle = handle;
        _connection = context.Connection;
        _readOnly = context.ReadOnly;
        _gate = RequestGate.For(host.Model, host.Gate);
    }

    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        ChildOutput output = ChildOutput.Into(buffer);
        ScriptCall call = Call("pread", buffer.Length, offset) with { Output = output };
        if (!await CallAsync(call, cancellationToken).ConfigureAwait(false))
        {
            throw _host.Failed("pread", NbdError.IoError, "the script has no such method, which it must have");
        }
        if (output.Count != buffer.Length)
        {
            throw _host.Failed("pread", NbdError.IoError, $"the script printed {output.Count} bytes instead of {buffer.Length}");
        }
    }

    public async ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        ScriptCall call = Call("pwrite", data.Length, offset, ScriptText.Flags(flags)) with { Input = data };
        if (!await CallAsync(call, cancellationToken).ConfigureAwait(false))
        {
            throw _host.Failed("pwrite", NbdError.IoError, "the script has no such method, but says that it can write");
        }
    }

    public async ValueTask FlushAsync(CancellationToken cancellationToken)
        => await CallAsync(new ScriptCall("flush", _handle), cancellationToken).ConfigureAwait(false);

    public async ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => await CallAsync(Call("trim", length, offset, ScriptText.Flags(flags)), cancellationToken).ConfigureAwait(false);

    public async ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (!await CallAsync(Call("zero", length, offset, ScriptText.Flags(flags)), cancellationToken).ConfigureAwait(false))
        {
            throw _host.Failed("zero", NbdError.NotSupported, "the script has no such method");
        }
    }

    public async ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => await CallAsync(Call("cache", length, offset), cancellationToken).ConfigureAwait(false);

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        ChildOutput output = ChildOutput.UpTo(ExtentsLimit);
        ScriptCall call = Call("extents", length, offset, ScriptText.Flags(flags)) with { Output = output };
        if (!await CallAsync(call, cancellationToken).ConfigureAwait(false))
        {
            throw _host.Failed("extents", NbdError.IoError, "the script has no such method, but says that it knows its extents");
        }
        try
        {
            ScriptText.Extents(output.Text() ?? throw new FormatException("it is not UTF-8 text"), extents);
        }
        catch (Exception e) when (e is FormatException or ArgumentException)
        {
            throw _host.Failed("extents", e is FormatException ? NbdError.IoError : NbdError.InvalidArgument, e.Message);
        }
    }

    public async ValueTask CloseAsync()
    {
        try
        {
            if (_gate is not null)
            {
                await _gate.EnterAsync(CancellationToken.None).ConfigureAwait(false);
            }
            try
            {
                // Nobody can give it up any more, and others may wait for it.
                using var limit = new CancellationTokenSource(LongestClose, _host.TimeProvider);
                await _host.CallAsync(new ScriptCall("close", _handle) { Connection = _connection }, limit.Token).ConfigureAwait(false);
            }
            finally
            {
                _gate?.Exit();
            }
        }
        catch (OperationCanceledException)
        {
            throw _host.Failed("close", NbdError.IoError, $"the script was killed after {LongestClose.TotalSeconds} seconds");
        }
        finally
        {
            if (_host.Model == ThreadModel.SerializeConnections)
            {
                _host.OnlyConnection.Release();
            }
        }
    }

    private ScriptCall Call(string method, long count, long offset, params string[] more)
        => new(method, [_handle, ScriptText.Number(count), ScriptText.Number(offset), .. more]);

    private async ValueTask<bool> CallAsync(ScriptCall call, CancellationToken cancellationToken)
    {
        if (_gate is not null)
        {
            await _gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            return await _host.CallAsync(call with { Connection = _connection }, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _gate?.Exit();
        }
    }
}
