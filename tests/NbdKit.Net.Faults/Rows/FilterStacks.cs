using NbdKit.Tests.Filters;

namespace NbdKit.Faults.Rows;

/// <summary>Random stacks of filters with random histories of 200 requests each, against a model.</summary>
internal sealed class FilterStacks : Fault
{
    public override string Id => "F21";

    public override string Title => "random stacks of filters";

    public override async Task<string> RunAsync(FaultRun run)
    {
        long count = run.Size(1_000, 100_000);
        for (int i = 0; i < count; i++)
        {
            await FilterStackTests.RunAsync(run.Seed + i);
        }
        return $"{count} stacks, all like the model";
    }
}
