using System.Runtime.InteropServices;

namespace NbdKit.Tool;

/// <summary>Turns the first signal to end into a request to stop; the second ends the process at once.</summary>
internal sealed class SignalHandling : IDisposable
{
    // Never disposed of: a signal may be in its handler while this object is.
    private readonly CancellationTokenSource _stop = new();
    private readonly PosixSignalRegistration[] _registrations;
    private int _received;

    public SignalHandling()
        => _registrations =
        [
            PosixSignalRegistration.Create(PosixSignal.SIGINT, Handle),
            PosixSignalRegistration.Create(PosixSignal.SIGTERM, Handle),
            PosixSignalRegistration.Create(PosixSignal.SIGHUP, Handle),
            PosixSignalRegistration.Create(PosixSignal.SIGQUIT, Handle),
        ];

    /// <summary>Fires with the first signal.</summary>
    public CancellationToken Stop => _stop.Token;

    /// <summary>Whether the first signal was of a kind that a terminal does not send to all that run in it.</summary>
    public bool IsForThisProcess { get; private set; }

    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
        {
            registration.Dispose();
        }
    }

    private void Handle(PosixSignalContext context)
    {
        context.Cancel = true;
        if (Interlocked.Increment(ref _received) > 1)
        {
            Environment.Exit(128 + Number(context.Signal));
        }
        IsForThisProcess = context.Signal is PosixSignal.SIGTERM or PosixSignal.SIGHUP;
        _stop.Cancel();
    }

    private static int Number(PosixSignal signal) => signal switch
    {
        PosixSignal.SIGHUP => 1,
        PosixSignal.SIGINT => 2,
        PosixSignal.SIGQUIT => 3,
        _ => 15,
    };
}
