using System.Collections.Concurrent;

namespace NbdKit.Tests.Testing;

/// <summary>A synchronization context with one thread, as programs with windows have it.</summary>
internal sealed class SingleThread : SynchronizationContext
{
    private readonly BlockingCollection<(SendOrPostCallback Call, object? State)> _calls = [];

    public override void Post(SendOrPostCallback d, object? state) => _calls.Add((d, state));

    /// <summary>Runs something on a thread of its own that has this context, to its end.</summary>
    public static Task RunAsync(Func<Task> work)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            var context = new SingleThread();
            SetSynchronizationContext(context);
            Task running = work();
            running.ContinueWith(_ => context._calls.CompleteAdding(), TaskScheduler.Default);
            foreach ((SendOrPostCallback call, object? state) in context._calls.GetConsumingEnumerable())
            {
                call(state);
            }
            if (running.Exception is { } failure)
            {
                done.SetException(failure.InnerExceptions);
            }
            else
            {
                done.SetResult();
            }
        });
        thread.Start();
        return done.Task;
    }
}
