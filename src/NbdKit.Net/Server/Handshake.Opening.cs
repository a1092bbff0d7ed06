using NbdKit.Protocol;

namespace NbdKit.Server;

// Opening exports, in time, and within what one client may ask for.
internal sealed partial class Handshake
{
    // Opened to answer a question about its meta contexts, and kept because the next option is likely to enter it.
    private NextContext? _opened;
    private string _openedName = "";

    /// <summary>Opens an export to answer an option about it; null if that fails, which is answered.</summary>
    private async ValueTask<NextContext?> OpenToAskAsync(OptionType option, string name)
    {
        if (await NeedsTlsAsync(name).ConfigureAwait(false))
        {
            (OptionReplyType error, string message) = RefusalInPlainText(option);
            _replies.Error(option, error, message);
            return null;
        }
        if (_opened is null || _openedName != name)
        {
            await CloseOpenedAsync().ConfigureAwait(false);
            _opened = await TryOpenAsync(option, name).ConfigureAwait(false);
            _openedName = name;
        }
        return _opened;
    }

    /// <summary>The export that was opened for a question, which is the caller's from now on; null if it is another one.</summary>
    private NextContext? TakeOpened(string name)
    {
        NextContext? opened = _openedName == name ? _opened : null;
        if (opened is not null)
        {
            _opened = null;
        }
        return opened;
    }

    private async ValueTask CloseOpenedAsync()
    {
        if (_opened is { } opened)
        {
            _opened = null;
            await opened.CloseAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Opens an export for an option that has replies; null if that fails, which is answered.</summary>
    private async ValueTask<NextContext?> TryOpenAsync(OptionType option, string name)
    {
        bool isInfo = option == OptionType.Info;
        if (option != OptionType.Go && (isInfo ? _opensLeft : _metaOpensLeft) <= 0)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.LimitExceeded, "the client asked about exports too often");
        }
        // An open that fails is work for the layers too.
        _opensLeft -= isInfo ? 1 : 0;
        _metaOpensLeft -= isInfo ? 0 : 1;
        try
        {
            return await OpenAsync(name).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not ConnectionEndedException && !_connection.Aborted.IsCancellationRequested)
        {
            OptionReplyType error = e switch
            {
                NbdException { Error: NbdError.Shutdown } => OptionReplyType.ErrShutdown,
                NbdException { Error: NbdError.PermissionDenied } => OptionReplyType.ErrPolicy,
                _ => OptionReplyType.ErrUnknown,
            };
            _replies.Error(option, error, e is NbdException ? e.Message : "the export cannot be opened");
            return null;
        }
    }

    private async ValueTask<NextContext> OpenAsync(string name)
    {
        // Layers may take their time.
        await SendAsync().ConfigureAwait(false);
        _connection.Public.ExportName = name;
        using var limit = new CancellationTokenSource(_options.OpenTimeout, _options.TimeProvider);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(limit.Token, _connection.Aborted);
        _connection.BeginOpening();
        Task<NextContext> opening = OpenAndPrepareAsync(name, either.Token);
        try
        {
            return await opening.WaitAsync(either.Token).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            if (!opening.IsFaulted && !opening.IsCanceled)
            {
                // A layer that does not heed its token: nobody waits for it any more, but what it opens is closed.
                _connection.Server.BeginLateOpen();
                _ = CloseLateAsync(opening);
            }
            bool timedOut = e is OperationCanceledException && limit.IsCancellationRequested;
            string message = timedOut ? "opening the export took too long" : LogText.Message(e);
            // A layer's message is likely to quote the name, and the exception would be written out as it is.
            Log.OpenFailed(
                _connection.Server.Logger, _connection.Public.Id, LogText.Clean(name), message,
                e is NbdException ? null : LogText.IfClean(e));
            throw timedOut ? new NbdException(NbdError.IoError, message, e) : e;
        }
        finally
        {
            _connection.EndOpening();
        }
    }

    private async Task<NextContext> OpenAndPrepareAsync(string name, CancellationToken cancellationToken)
    {
        NextContext context = await _connection.Server.Backend.OpenEntryAsync(
            _options.ReadOnly, name, _connection.Public, cancellationToken).ConfigureAwait(false);
        try
        {
            await context.PrepareAsync(cancellationToken).ConfigureAwait(false);
            return context;
        }
        catch
        {
            await context.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task CloseLateAsync(Task<NextContext> opening)
    {
        try
        {
            NextContext context = await opening.ConfigureAwait(false);
            await context.CloseAsync().ConfigureAwait(false);
        }
        catch (Exception e)
        {
            Log.LayerFailed(_connection.Server.Logger, _connection.Server.Backend.Name, "open", e);
        }
        finally
        {
            _connection.Server.EndLateOpen();
        }
    }
}
