using System.Collections.Concurrent;

namespace NbdKit.Tests.Testing;

/// <summary>What a recording layer does when it is called: records, then waits or fails as the test wishes.</summary>
internal sealed class CallScript(CallRecorder recorder)
{
    private readonly ConcurrentDictionary<string, Func<RecordedCall, Exception?>> _failures = new();

    public CallRecorder Recorder { get; } = recorder;

    /// <summary>Runs within every callback, after it was recorded; may wait and may throw.</summary>
    public Func<RecordedCall, CancellationToken, ValueTask>? OnCall { get; set; }

    /// <summary>Makes the next calls of a callback fail.</summary>
    public void Fail(string callback, int times = int.MaxValue, NbdError error = NbdError.IoError)
    {
        int left = times;
        Fail(callback, call => Interlocked.Decrement(ref left) >= 0 ? new NbdException(error, $"{call} is told to fail") : null);
    }

    /// <summary>Lets a function decide which calls of a callback fail, and how.</summary>
    public void Fail(string callback, Func<RecordedCall, Exception?> decide) => _failures[callback] = decide;

    /// <summary>Lets a callback succeed again.</summary>
    public void Succeed(string callback) => _failures.TryRemove(callback, out _);

    public async ValueTask RunAsync(RecordedCall call, CancellationToken cancellationToken)
    {
        Recorder.Add(call);
        try
        {
            if (OnCall is { } onCall)
            {
                await onCall(call, cancellationToken);
            }
            if (_failures.TryGetValue(call.Callback, out Func<RecordedCall, Exception?>? decide) && decide(call) is { } failure)
            {
                throw failure;
            }
        }
        catch
        {
            Recorder.Add(call with { Failed = true });
            throw;
        }
    }
}
