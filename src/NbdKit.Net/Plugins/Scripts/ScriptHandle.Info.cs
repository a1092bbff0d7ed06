using System.Text;
using NbdKit.Protocol;

namespace NbdKit.Plugins.Scripts;

// What the export is and can do: a dozen calls of the script, with nbdkit's defaults for methods that it does not have.
internal sealed partial class ScriptHandle
{
    public async ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
    {
        if (_gate is not null)
        {
            await _gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            return await AskAsync(cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _gate?.Exit();
        }
    }

    private async ValueTask<NbdExportInfo> AskAsync(CancellationToken cancellationToken)
    {
        long size = await ParsedAsync<long?>("get_size", null, t => NbdParse.Size(ScriptText.Chomp(t)), cancellationToken)
            .ConfigureAwait(false)
            ?? throw _host.Failed("get_size", NbdError.IoError, "the script has no such method, which it must have");
        string? description = await DescriptionAsync(cancellationToken).ConfigureAwait(false);
        BlockSize blockSize = await ParsedAsync("block_size", default, ScriptText.BlockSize, cancellationToken).ConfigureAwait(false);
        bool canWrite = !_readOnly && await IsTrueAsync("can_write", cancellationToken).ConfigureAwait(false);
        bool canZero = canWrite && await IsTrueAsync("can_zero", cancellationToken).ConfigureAwait(false);
        bool canFastZero = canWrite && await IsTrueAsync("can_fast_zero", cancellationToken, fallback: !canZero).ConfigureAwait(false);
        bool canTrim = canWrite && await IsTrueAsync("can_trim", cancellationToken).ConfigureAwait(false);
        bool canFlush = await IsTrueAsync("can_flush", cancellationToken).ConfigureAwait(false);
        Support canFua = !canWrite
            ? Support.None
            : await ParsedAsync("can_fua", canFlush ? Support.Emulate : Support.None, ScriptText.Support, cancellationToken)
                .ConfigureAwait(false);
        return new NbdExportInfo
        {
            Size = size,
            Description = description,
            BlockSize = blockSize,
            CanWrite = canWrite,
            CanZero = canZero ? Support.Native : Support.Emulate,
            CanFastZero = canFastZero,
            CanTrim = canTrim,
            CanFlush = canFlush,
            CanFua = canFua,
            IsRotational = await IsTrueAsync("is_rotational", cancellationToken).ConfigureAwait(false),
            CanMultiConn = await IsTrueAsync("can_multi_conn", cancellationToken).ConfigureAwait(false),
            CanCache = await ParsedAsync("can_cache", Support.None, ScriptText.Support, cancellationToken).ConfigureAwait(false),
            CanExtents = await IsTrueAsync("can_extents", cancellationToken).ConfigureAwait(false),
            IsBlocking = true,
        };
    }

    private async ValueTask<bool> IsTrueAsync(string method, CancellationToken cancellationToken, bool fallback = false)
        => await _host.AskAsync(new ScriptCall(method, _handle) { Connection = _connection }, cancellationToken)
            .ConfigureAwait(false) switch
        {
            ScriptAnswer.Yes => true,
            ScriptAnswer.No => false,
            _ => fallback,
        };

    private async ValueTask<T> ParsedAsync<T>(
        string method, T fallback, Func<string, T> parse, CancellationToken cancellationToken)
    {
        string? text = await TextAsync(method, cancellationToken).ConfigureAwait(false);
        try
        {
            return text is null ? fallback : parse(text);
        }
        catch (FormatException e)
        {
            throw _host.Failed(method, NbdError.IoError, e.Message);
        }
    }

    /// <summary>The description, which is no reason to fail.</summary>
    private async ValueTask<string?> DescriptionAsync(CancellationToken cancellationToken)
    {
        try
        {
            string? text = await TextAsync("export_description", cancellationToken).ConfigureAwait(false);
            text = text is null ? null : ScriptText.Chomp(text);
            return text is not null && Encoding.UTF8.GetByteCount(text) <= WireString.MaximumBytes ? text : null;
        }
        catch (NbdException)
        {
            return null;
        }
    }

    private ValueTask<string?> TextAsync(string method, CancellationToken cancellationToken)
        => _host.TextAsync(new ScriptCall(method, _handle) { Connection = _connection }, cancellationToken);
}
