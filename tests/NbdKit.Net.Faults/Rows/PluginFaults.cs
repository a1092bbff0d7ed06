using NbdKit.Faults.Failing;

namespace NbdKit.Faults.Rows;

/// <summary>Every callback of a plugin fails in every way, at every moment, for each form of replies.</summary>
internal sealed class PluginFaults : Fault
{
    public override string Id => "F09";

    public override string Title => "plugin faults";

    public override async Task<string> RunAsync(FaultRun run)
    {
        int count = 0;
        for (int form = 0; form < run.Choose(2, 3); form++)
        {
            foreach (Callback callback in Enum.GetValues<Callback>())
            {
                foreach (Failure failure in Enum.GetValues<Failure>())
                {
                    foreach (Moment moment in Enum.GetValues<Moment>())
                    {
                        await RunAsync(callback, failure, moment, form);
                        count++;
                    }
                }
            }
        }
        return $"{count} cases";
    }

    private static async Task RunAsync(Callback callback, Failure failure, Moment moment, int form)
    {
        try
        {
            await new FailureCase(callback, failure, moment, form).RunAsync();
        }
        catch (Exception e)
        {
            throw new InvalidOperationException($"{callback}, {failure}, {moment}, form {form}: {e.Message}", e);
        }
    }
}
