using System.Runtime.CompilerServices;

namespace NbdKit.Client;

// Sending: one thread at a time, whoever has something to send when nobody does; what is staged meanwhile goes out with its next
// call. Threads that run completions hold sends back until they are through.
internal sealed partial class ClientTransmission
{
    private readonly Action _continueSending;
    private ConfiguredValueTaskAwaitable.ConfiguredValueTaskAwaiter _sent;
    private RequestStage.Piece _piece;
    private TaskCompletionSource? _quiet;
    private bool _sending;
    private int _holds;
    private bool _startedByReply;

    /// <summary>Sends what is staged, unless somebody is at it.</summary>
    public void Send()
    {
        lock (_lock)
        {
            if (_sending || _stage.IsEmpty || _end is not null)
            {
                return;
            }
            _sending = true;
        }
        SendStaged();
    }

    /// <summary>From now on requests are staged only: more of them follow.</summary>
    public void HoldSends()
    {
        lock (_lock)
        {
            _holds++;
        }
    }

    public void ReleaseSends()
    {
        lock (_lock)
        {
            _holds--;
        }
        Send();
    }

    private void SendStaged()
    {
        // Completes at once as long as the server takes what is sent; else the rest follows on the thread that it is told.
        while (TakePiece())
        {
            try
            {
                _sent = _transport.SendAsync(_piece.Bytes, _aborted.Token).ConfigureAwait(false).GetAwaiter();
                if (!_sent.IsCompleted)
                {
                    _sent.UnsafeOnCompleted(_continueSending);
                    return;
                }
                _sent.GetResult();
            }
            catch (Exception e)
            {
                SendFailed(e);
                return;
            }
            Sent();
        }
    }

    private void ContinueSending()
    {
        try
        {
            _sent.GetResult();
        }
        catch (Exception e)
        {
            SendFailed(e);
            return;
        }
        Sent();
        SendStaged();
    }

    private bool TakePiece()
    {
        lock (_lock)
        {
            if (_end is null && _stage.TryTake(out _piece))
            {
                return true;
            }
            StopSending();
            return false;
        }
    }

    /// <summary>The bytes have left: their memory is free.</summary>
    private void Sent()
    {
        RequestStage.Piece piece = _piece;
        _piece = default;
        piece.Slab?.Release();
        if (piece.Command is { } command)
        {
            EndTouch(command);
        }
    }

    private void SendFailed(Exception e)
    {
        Fail(new NbdClientException(NbdClientError.ConnectionLost, "The connection was lost while a request was sent.", e));
        Sent();
        lock (_lock)
        {
            StopSending();
        }
    }

    // Under the lock.
    private void StopSending()
    {
        _sending = false;
        _quiet?.TrySetResult();
        if (_end is not null)
        {
            CloseStage();
        }
    }
}
