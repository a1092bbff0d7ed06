using NbdKit.Layers;
using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins.Scripts;

/// <summary>Runs the methods of scripts: one process for each call, so many at a time, with a directory for what they keep.</summary>
/// <param name="plugin">The plugin's name, for messages.</param>
/// <param name="find">
/// The command that a method is to be added to; null if there is no such method, and no need to run anything to know it.
/// </param>
/// <param name="processes">The scripts that run at a time.</param>
/// <param name="limit">The longest that one may run.</param>
/// <param name="timeProvider">The clock.</param>
internal sealed class ScriptHost(
    string plugin, Func<string, string[]?> find, int processes, TimeSpan limit, TimeProvider timeProvider) : IDisposable
{
    private const int TextLimit = 1 << 20;

    private readonly SemaphoreSlim _slots = new(processes);
    private Dictionary<string, string>? _environment;

    /// <summary>How many calls the script takes at once.</summary>
    public ThreadModel Model { get; set; } = ThreadModel.SerializeAllRequests;

    /// <summary>The gate of calls that do not belong to a handle, and of those that do if all are to come one by one.</summary>
    public RequestGate Gate { get; } = new();

    /// <summary>Held by the one client that there is, if the script takes no other.</summary>
    public SemaphoreSlim OnlyConnection { get; } = new(1);

    /// <summary>The clock.</summary>
    public TimeProvider TimeProvider => timeProvider;

    /// <summary>The scripts' directory, which is there from the first call on.</summary>
    public string Folder { get; private set; } = "";

    /// <summary>Makes the scripts' directory.</summary>
    public void MakeFolder()
    {
        Folder = Directory.CreateTempSubdirectory("nbdkit").FullName;
        _environment = ChildCommand.EnvironmentWith(new KeyValuePair<string, string>("tmpdir", Folder));
    }

    /// <summary>Removes the scripts' directory with all that they left in it.</summary>
    public void Dispose()
    {
        if (Folder.Length > 0 && Directory.Exists(Folder))
        {
            Directory.Delete(Folder, recursive: true);
        }
    }

    /// <summary>Calls a method that answers yes or nothing.</summary>
    /// <returns>Whether there is such a method.</returns>
    /// <exception cref="NbdException">It failed.</exception>
    public async ValueTask<bool> CallAsync(ScriptCall call, CancellationToken cancellationToken)
    {
        ScriptAnswer answer = await AskAsync(call, cancellationToken).ConfigureAwait(false);
        return answer == ScriptAnswer.No
            ? throw Failed(call.Method, NbdError.IoError, "the script ended with 3 (false), which is no answer here")
            : answer == ScriptAnswer.Yes;
    }

    /// <summary>Calls a method that prints something; null if there is none.</summary>
    /// <exception cref="NbdException">It failed.</exception>
    public async ValueTask<string?> TextAsync(ScriptCall call, CancellationToken cancellationToken, int limit = TextLimit)
    {
        ChildOutput output = ChildOutput.UpTo(limit);
        return await CallAsync(call with { Output = output }, cancellationToken).ConfigureAwait(false)
            ? output.Text() ?? throw Failed(call.Method, NbdError.IoError, "what the script printed is not UTF-8 text")
            : null;
    }

    /// <summary>Calls any method.</summary>
    /// <exception cref="NbdException">It failed.</exception>
    public async ValueTask<ScriptAnswer> AskAsync(ScriptCall call, CancellationToken cancellationToken)
    {
        if (find(call.Method) is not { } script)
        {
            return ScriptAnswer.Missing;
        }
        ChildOutput output = call.Output ?? ChildOutput.FirstOf(0);
        ChildResult result;
        await _slots.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            var command = new ChildCommand(script[0], [.. script[1..], call.Method, .. call.Arguments ?? []]) { Environment = _environment };
            result = await ChildRun.RunAsync(command, call.Input, output, limit, timeProvider, cancellationToken).ConfigureAwait(false);
        }
        catch (NbdException e)
        {
            throw Failed(call.Method, e.Error, e.Message);
        }
        finally
        {
            _slots.Release();
        }
        if (output.IsTooMuch && call.Output is not null)
        {
            throw Failed(call.Method, NbdError.IoError, $"the script printed more than {output.Count} bytes");
        }
        return Answer(call, result);
    }

    public NbdException Failed(string method, NbdError error, string what) => new(error, $"{plugin}: {method}: {what}");

    /// <summary>What an exit code means ("Exit codes" in nbdkit-sh-plugin(3)).</summary>
    private ScriptAnswer Answer(ScriptCall call, ChildResult result)
    {
        NbdError error = NbdError.IoError;
        switch (result.Status)
        {
            case 0:
                return ScriptAnswer.Yes;
            case 2:
                return ScriptAnswer.Missing;
            case 3:
                return ScriptAnswer.No;
            case 4 or 5:
                call.Connection?.ShutdownServer();
                error = NbdError.Shutdown;
                break;
            case 6:
                call.Connection?.Disconnect(force: true);
                throw Failed(call.Method, NbdError.Shutdown, "the script has cut the connection");
            case 7 or 8:
                call.Connection?.Disconnect(force: false);
                error = NbdError.Shutdown;
                break;
            case < 0:
                throw Failed(call.Method, NbdError.IoError, $"the script was {result.Ending()}");
        }
        return result.Status is 4 or 7
            ? ScriptAnswer.Yes
            : throw ScriptErrors.Parse($"{plugin}: {call.Method}", result.Errors.FirstLine(), error);
    }
}
